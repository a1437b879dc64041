"""One module a command of `gpurig`; each is imported when it is called."""
