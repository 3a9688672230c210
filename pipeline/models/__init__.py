"""Networks: backbones and their fusion, hierarchical heads, ensembles, their cost, and where they run."""
