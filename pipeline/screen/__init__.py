"""Progress of a run for a person: bars on a terminal, plain lines anywhere else."""
