"""Cost of adapters on an encoder of a published size: python -m jobs.bench.adapters geometry=large device=cuda"""

from pydantic import Field

from ser_models.adapters import ADAPTERS
from ser_models.adapters.cost import measure_adapters, render_costs
from seral.options import Options, run_job


class BenchAdaptersOptions(Options):
    """Options of the adapter benchmark."""

    specs: list[str] = Field(default=[*(kind for kind in ADAPTERS if kind != "full"), "lora+bottleneck+gate", "full"])
    """Adapters, joined by + where several go together; the last is what the others are compared with."""
    geometry: str = "base"
    """base (768 x 12) or large (1024 x 24)."""
    batch: int = Field(default=4, ge=1)
    seconds: float = Field(default=3.0, gt=0)
    """Length of the clips."""
    steps: int = Field(default=5, ge=2)
    """Training steps; the median of all but the first counts."""
    device: str = Field(default="cpu", pattern="^(cpu|cuda)$")
    threads: int = Field(default=1, ge=1)


if __name__ == "__main__":
    run_job(BenchAdaptersOptions, lambda o: render_costs(measure_adapters(**o.model_dump())), __doc__)
