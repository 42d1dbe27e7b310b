"""The application: target, plan, compress, evaluate, export, measure, sweep. What Python users and the commands call.

Every job takes frozen records of options and returns a record; nothing is printed (`reporter.Reporter` is told).
"""
