/* Which processes use a fake card, and how much. */
typedef struct { unsigned pid; unsigned long long bytes; } Running1;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } Running3;

static int running(const char *function, Device device, char kind, unsigned *number, void *out, int version) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    unsigned room = *number, found = 0;
    for (int i = 0; i < section->processes; i++) {
        const Process *process = &section->process[i];
        if (process->kind != kind) continue;
        if (out && found < room && version == 1)
            ((Running1 *)out)[found] = (Running1){process->pid, process->bytes};
        if (out && found < room && version == 3)
            ((Running3 *)out)[found] =
                (Running3){process->pid, process->bytes, process->gpu_instance, process->compute_instance};
        found++;
    }
    *number = found;
    return leave(found > room ? INSUFFICIENT_SIZE : SUCCESS);
}

#define RUNNING_CALL(name, kind, version) \
    API int name(Device device, unsigned *number, void *out) { return running(#name, device, kind, number, out, version); }
RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses, 'c', 1)
RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses_v2, 'c', 3)
RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses_v3, 'c', 3)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses, 'g', 1)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses_v2, 'g', 3)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, 'g', 3)
RUNNING_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'm', 3)

/* A process's share: its own "use" line, else an equal part of what the card does. */
static unsigned share(const Section *section, const Process *process) {
    for (int i = 0; i < section->uses; i++)
        if (section->use[i].pid == process->pid) return section->use[i].percent;
    return section->uses ? 0 : flag(section, "utilization_gpu") / (unsigned)section->processes;
}

typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; } Sample;
/* As in NVIDIA's driver: a sample each sixth of a second, none of a process that did nothing, NotFound where there is
 * no newer one. */
API int nvmlDeviceGetProcessUtilization(Device device, Sample *out, unsigned *number, unsigned long long since_us) {
    enum { PERIOD_US = 166667 };
    Section *section;
    int code = enter("nvmlDeviceGetProcessUtilization", device, &section);
    if (code) return code;
    if (!get(section, "utilization_gpu")) return leave(NOT_SUPPORTED);
    unsigned long long time_us = (unsigned long long)(seconds(CLOCK_REALTIME) * 1e6);
    time_us -= time_us % PERIOD_US;
    unsigned room = *number, found = 0;
    for (int i = 0; i < section->processes && since_us < time_us; i++) {
        const Process *process = &section->process[i];
        unsigned percent = share(section, process);
        if (!percent) continue;
        if (out && found < room) out[found] = (Sample){process->pid, time_us, percent, 0, 0, 0};
        found++;
    }
    *number = found;
    if (!found) return leave(NOT_FOUND);
    return leave(!out || found > room ? INSUFFICIENT_SIZE : SUCCESS);
}
