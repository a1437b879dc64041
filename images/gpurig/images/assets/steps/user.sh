#!/bin/sh
# The user of jobs, and gpurig-job.
set -eu
# Not root: gitlab-runner makes the folders of a job writable for everybody. Ubuntu's images have another user 1000.
sed -i '/^[^:]*:[^:]*:1000:/d' /etc/passwd /etc/group
printf 'gpurig:x:1000:1000::/home/gpurig:/bin/sh\n' >> /etc/passwd
printf 'gpurig:x:1000:\n' >> /etc/group
mkdir -p /home/gpurig
chown 1000:1000 /home/gpurig
# -I: no file of the checkout that a job runs in may shadow a module.
printf '#!/bin/sh\nexec /opt/gpurig/bin/python -I -m gpurig.evaljobs "$@"\n' > /usr/local/bin/gpurig-job
chmod 755 /usr/local/bin/gpurig-job
rm -rf /steps
