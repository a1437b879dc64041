"""One module a command of `gpurig-job`; each is imported when it is called."""
