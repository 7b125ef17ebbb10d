"""Values only: hydra reads the YAML files beside this one as `pkg://conf`."""
