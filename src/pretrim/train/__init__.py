"""Direct training of a network: recipe, loop, state, evaluation."""

from .diagnosis import diagnose, majority_share
from .evaluation import Evaluation, evaluate, scores
from .execution import Choice, Execution
from .log import check_trackers, draw_curve, track, write_log
from .loop import Progress, Training, train
from .mistakes import confusion_json, draw_confusion, draw_worst, write_confusion, write_worst
from .norms import recalibrate, recalibration_images
from .optimizer import learning_rate_at, make_optimizer
from .outputs import Teacher, check_logits, split_outputs
from .processes import check_device, is_main, make_accelerator
from .recipe import Recipe, parse_changes, preset
from .state import EpochRecord
from .stop import Interrupted
from .uncertainty import Comparison, Interval, compare, difference_interval, mcnemar, pack, unpack, wilson

__all__ = [
    "Choice",
    "Comparison",
    "EpochRecord",
    "Evaluation",
    "Execution",
    "Interrupted",
    "Interval",
    "Progress",
    "Recipe",
    "Teacher",
    "Training",
    "check_device",
    "check_logits",
    "check_trackers",
    "compare",
    "confusion_json",
    "diagnose",
    "difference_interval",
    "draw_confusion",
    "draw_curve",
    "draw_worst",
    "evaluate",
    "is_main",
    "learning_rate_at",
    "majority_share",
    "make_accelerator",
    "make_optimizer",
    "mcnemar",
    "pack",
    "parse_changes",
    "preset",
    "recalibrate",
    "recalibration_images",
    "scores",
    "split_outputs",
    "track",
    "train",
    "unpack",
    "wilson",
    "write_confusion",
    "write_log",
    "write_worst",
]
