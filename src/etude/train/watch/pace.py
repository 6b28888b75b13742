"""How fast a run goes: tokens and samples a second since the last log line, validations and saves left out."""

from time import perf_counter

import torch

from etude.base.progress import Progress


class Pace:
    """A clock over the steps between two log lines."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._device = device
        self._dtype = dtype
        self._begun, self._before, self._waited = perf_counter(), Progress(), 0.0

    def _ceiling(self) -> float:
        """The device's most operations a second; where it has to be timed, that is no part of a step."""
        from etude.model.flops import matmul_ceiling

        begun = perf_counter()
        ceiling = matmul_ceiling(str(self._device), self._dtype)
        self.leave_out(perf_counter() - begun)
        return ceiling

    def restart(self, progress: Progress) -> None:
        """Measure from here on."""
        self._begun, self._before, self._waited = perf_counter(), progress, 0.0

    def wait(self, seconds: float) -> None:
        """Count time that was spent on waiting for the loader."""
        self._waited += seconds

    def leave_out(self, seconds: float) -> None:
        """Count time that belongs to no step."""
        self._begun += seconds

    def take(self, progress: Progress, flops_per_token: float | None = None) -> dict[str, float]:
        """Give what was measured, in seconds and per second, and measure from here on.

        `flops_per_token` are a step's operations for each token, where they are known.
        """
        before, passed = self._before, max(perf_counter() - self._begun, 1e-9)
        times = {
            "time/seconds": progress.seconds,
            "train/tokens_per_second": (progress.tokens - before.tokens) / passed,
            "train/samples_per_second": (progress.samples - before.samples) / passed,
            "time/step_seconds": passed / max(progress.step - before.step, 1),
            "time/loader_share": self._waited / passed,
        }
        if flops_per_token is not None:
            done = flops_per_token * times["train/tokens_per_second"]
            times["train/flops_per_second"] = done
            times["time/flops_utilization"] = done / self._ceiling()
        if self._device.type == "cuda":
            times["train/peak_memory"] = float(torch.cuda.max_memory_allocated(self._device))
        self.restart(progress)
        return times
