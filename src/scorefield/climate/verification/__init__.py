"""Whether predictions in physical units are as good as the truth can tell: ensembles on xarray data beside what was observed."""
