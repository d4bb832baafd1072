"""What scorefield does: verbs as dataclasses, `Sample(run=..., n=64, out=...).run()`, which the command line has by their names.

Those of a domain are in its room: `scorefield.climate.Downscale`, `scorefield.mri.Reconstruct`, `scorefield.functions.Plot`.
"""

from scorefield.foundation.lazy import lazily

__getattr__, __dir__, HOMES = lazily(
    __name__,
    {
        "calibrate": "Calibrate",
        "check_data": "CheckData",
        "compare": "Compare MakeReference",
        "complete": "Complete",
        "demo": "Demo",
        "denoise": "Denoise",
        "evaluate": "Evaluate",
        "evidence": "Evidence",
        "export": "Export",
        "hub": "Pull Push",
        "import_weights": "Import",
        "likelihood": "Likelihood",
        "models": "Models",
        "noise_levels": "NoiseLevels",
        "report.page": "Report",
        "restore": "Restore",
        "sample": "Sample",
        "train": "Recipes Train",
        "tune_likelihood": "TuneLikelihood",
        "tune_sampler": "TuneSampler",
    },
)
__all__ = [*HOMES]  # pyright: ignore[reportUnsupportedDunderAll]  # noqa: PLE0604
