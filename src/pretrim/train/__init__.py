"""Direct training of a network: recipe, loop, state, evaluation."""

from .batch import Batch
from .classification import Classification
from .diagnosis import diagnose, majority_share
from .evaluation import Evaluation, evaluate, main_output, scores
from .execution import Execution, ExecutionChoice
from .layout import takes_channels_last
from .log import check_trackers, draw_curve, track, write_log
from .loop import Progress, Training, train
from .metric import ACCURACY, Baseline, Metric
from .mistakes import (
    CONFUSION,
    CONFUSION_PICTURE,
    WORST,
    WORST_PICTURE,
    confusion_json,
    draw_confusion,
    draw_worst,
    write_confusion,
    write_mistakes,
    write_worst,
)
from .norms import recalibrate, recalibration_images
from .optimizer import learning_rate_at, make_optimizer
from .outputs import AUXILIARY_WEIGHT, check_logits, forward, modes_kept, split_outputs
from .processes import check_device, is_main, make_accelerator
from .recipe import Recipe, parse_changes, preset
from .state import EpochRecord
from .stop import Interrupted
from .task import Assessment, Objective, Task, odd_targets
from .teacher import Teacher
from .uncertainty import Comparison, Interval, compare, difference_interval, mcnemar, pack, unpack, wilson

__all__ = [
    "ACCURACY",
    "AUXILIARY_WEIGHT",
    "CONFUSION",
    "CONFUSION_PICTURE",
    "WORST",
    "WORST_PICTURE",
    "Assessment",
    "Baseline",
    "Batch",
    "Classification",
    "Comparison",
    "EpochRecord",
    "Evaluation",
    "Execution",
    "ExecutionChoice",
    "Interrupted",
    "Interval",
    "Metric",
    "Objective",
    "Progress",
    "Recipe",
    "Task",
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
    "forward",
    "is_main",
    "learning_rate_at",
    "main_output",
    "majority_share",
    "make_accelerator",
    "make_optimizer",
    "mcnemar",
    "modes_kept",
    "odd_targets",
    "pack",
    "parse_changes",
    "preset",
    "recalibrate",
    "recalibration_images",
    "scores",
    "split_outputs",
    "takes_channels_last",
    "track",
    "train",
    "unpack",
    "wilson",
    "write_confusion",
    "write_log",
    "write_mistakes",
    "write_worst",
]
