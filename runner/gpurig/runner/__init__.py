"""The appliance: the command line, the `up` workflow, the exporter."""
