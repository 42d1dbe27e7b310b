"""The application layer, called by Python users and the commands: target, plan, compress, export, measure, sweep, ...

Every job takes frozen option records and returns a record. Jobs print nothing; they tell a `reporter.Reporter`.
"""
