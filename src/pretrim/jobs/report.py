"""`pretrim report`: an HTML page of a study or a single run, which opens offline."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import StudyError

from .export import artifacts_in
from .reporter import Reporter, Silent
from .study import check_page, open_study, write_report


def report(
    path: str | Path,
    output: str | Path,
    figures: str | Path | None = None,
    *,
    watch: bool = False,
    storage: str | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Write the report page of a study or of a run, whichever the folder holds.

    Args:
        path: folder of `sweep` or of `compress`.
        output: the page to write; its name ends in ``.html``.
        figures: a folder for the PNG and SVG figures of a study.
        watch: write a study's page again whenever a trial ends.
        storage: the database of a study, if it is not the folder's own.
        reporter: told each time the page was written.

    Raises:
        UsageError: an output that is not an .html file, or a missing folder.
        StudyError: neither a study nor a run, or a page that cannot be written.
        CheckpointError: a run that is damaged, or whose training was stopped.
    """
    from pretrim.runs.record import RECORD, STATE
    from pretrim.study.sweep import RECORD as STUDY

    path, output, figures = Path(path), Path(output), None if figures is None else Path(figures)
    check_page(output)
    if any((path / file).is_file() for file in (RECORD, STATE)) and not (path / STUDY).is_file():
        return write_run_report(path, output, reporter)
    try:
        study = open_study(path, storage)
    except StudyError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise StudyError(
            f"No study in {path} (it has no {STUDY}), and no run (it has no {RECORD}): make one with `pretrim sweep` "
            f"or `pretrim compress`."
        ) from error
    return write_report(study, output, figures, watch=watch, reporter=reporter)


def write_run_report(path: str | Path, output: str | Path, reporter: Reporter | None = None) -> Path:
    """Write the page of a single run: before and after, widths, training curve, and its errors.

    Args:
        path: folder of the run.
        output: the page to write; its name ends in ``.html``.
        reporter: told that the page was written.

    Raises:
        UsageError: an output that is not an .html file, or a missing folder.
        CheckpointError: the run is missing or damaged.
        StudyError: the page cannot be written.
    """
    from pretrim.report import run_contents, write_page
    from pretrim.runs.load import read

    path, output = Path(path), Path(output)
    check_page(output)
    page = run_contents(path, read(path), _exported(path))
    try:
        write_page(output, page["study"], page)
    except OSError as error:
        raise StudyError(f"Cannot write the report {output}: {error.strerror}.") from error
    (reporter or Silent()).say(f"{output}: run {path}, {output.stat().st_size / 2**20:.1f} MiB")
    return output


def _exported(path: Path) -> list[str]:
    """Describe the artifacts in a run's folder."""
    from pretrim.deploy import TITLES

    descriptions = []
    for artifact in artifacts_in(path):
        status = "not proved" if artifact.proof.get("failed") else "proved against PyTorch"
        size = f"{artifact.file_bytes / 1024:,.0f} KiB"
        title = TITLES.get(artifact.runtime, artifact.runtime)
        descriptions.append(f"{artifact.path.name} for {title}, {artifact.data_type}, {size}, {status}")
    return descriptions
