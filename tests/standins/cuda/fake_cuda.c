/* A libcuda.so.1 that answers from the environment, as much of it as gpurig asks (cuda.h):
 * GPURIG_FAKE_CUDA="VERSION INIT_CODE MAJOR.MINOR[:NAME],...", for example "13000 0 8.9:NVIDIA GeForce RTX 4090".
 * Without the variable, the file /etc/gpurig-fake-cuda.txt is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define CARDS 16
#define NAME 64

static int version, init_code = 999, count;
static int majors[CARDS], minors[CARDS];
static char names[CARDS][NAME];

static void load(void) {
    static char text[1024];
    const char *given = getenv("GPURIG_FAKE_CUDA");
    if (given) {
        snprintf(text, sizeof text, "%s", given);
    } else {
        FILE *file = fopen("/etc/gpurig-fake-cuda.txt", "r");
        if (!file || !fgets(text, sizeof text, file)) text[0] = 0;
        if (file) fclose(file);
    }
    int used = 0;
    count = 0;
    if (sscanf(text, "%d %d%n", &version, &init_code, &used) < 2) return;
    for (char *card = strtok(text + used, ",\n"); card && count < CARDS; card = strtok(NULL, ",\n")) {
        char *colon = strchr(card, ':');
        if (sscanf(card, " %d.%d", &majors[count], &minors[count]) != 2) continue;
        snprintf(names[count], NAME, "%s", colon ? colon + 1 : "");
        count++;
    }
}

EXPORT int cuDriverGetVersion(int *out) { load(); *out = version; return 0; }
EXPORT int cuInit(unsigned flags) { (void)flags; load(); return init_code; }
EXPORT int cuDeviceGetCount(int *out) { *out = count; return 0; }
EXPORT int cuDeviceGet(int *out, int index) { *out = index; return index < count ? 0 : 101; }

EXPORT int cuDeviceGetName(char *out, int size, int device) {
    snprintf(out, (size_t)size, "%s", names[device]);
    return 0;
}

EXPORT int cuDeviceGetAttribute(int *out, int attribute, int device) {
    if (attribute != 75 && attribute != 76) return 1;
    *out = attribute == 75 ? majors[device] : minors[device];
    return 0;
}
