"""What the client raises besides httpx's own errors for connections that fail."""

from __future__ import annotations

from customedit.schemas.answers import Batch, Job, Problem


class ApiError(RuntimeError):
    """The service refused. problem: what it said; retry_after: seconds, if it named any."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        self.problem, self.retry_after = problem, retry_after
        super().__init__(": ".join(x for x in (problem.title, problem.detail) if x))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def slug(self) -> str:
        """The last part of the problem's type, such as ``validation``."""
        return self.problem.type.rpartition("/")[2]


class JobFailed(RuntimeError):
    """A job that was waited for failed or was cancelled. job: as it is now."""

    def __init__(self, job: Job) -> None:
        self.job = job
        why = f": {job.error.title}: {job.error.detail}" if job.error else ""
        super().__init__(f"{job.id} {job.state}{why}")


class TimedOut(TimeoutError):
    """A job, or a batch, was not finished in time; it goes on. job: as it was last."""

    def __init__(self, job: Job | Batch) -> None:
        self.job = job
        super().__init__(f"{job.id} is {job.state} still")
