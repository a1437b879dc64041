"""What every part of gpurig needs and no part owns: errors, files, subprocesses, progress, the GitLab connection."""
