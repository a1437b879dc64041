/* The driving file, handles and rules of the fake NVML: what every call of it passes through. README.md describes the
 * file. Types and numbers follow NVIDIA's public nvml.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, TIMEOUT = 10, INSUFFICIENT_RESOURCES = 23 };

static const struct { int code; const char *name; const char *words; } ERRORS[] = {
    {0, "SUCCESS", "The operation was successful"},
    {1, "UNINITIALIZED", "Uninitialized"},
    {2, "INVALID_ARGUMENT", "Invalid Argument"},
    {3, "NOT_SUPPORTED", "Not Supported"},
    {4, "NO_PERMISSION", "Insufficient Permissions"},
    {6, "NOT_FOUND", "Not Found"},
    {7, "INSUFFICIENT_SIZE", "Insufficient Size"},
    {9, "DRIVER_NOT_LOADED", "Driver Not Loaded"},
    {10, "TIMEOUT", "Timeout"},
    {11, "IRQ_ISSUE", "Interrupt Request Issue"},
    {12, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"},
    {13, "FUNCTION_NOT_FOUND", "Function Not Found"},
    {14, "CORRUPTED_INFOROM", "Corrupted infoROM"},
    {15, "GPU_IS_LOST", "GPU is lost"},
    {16, "RESET_REQUIRED", "GPU requires reset"},
    {17, "OPERATING_SYSTEM", "The operating system has blocked the request"},
    {18, "LIB_RM_VERSION_MISMATCH", "RM has detected an NVML/RM version mismatch."},
    {19, "IN_USE", "GPU is in use"},
    {20, "MEMORY", "Insufficient Memory"},
    {21, "NO_DATA", "No data"},
    {23, "INSUFFICIENT_RESOURCES", "Insufficient resources"},
    {25, "ARGUMENT_VERSION_MISMATCH", "The provided version is invalid"},
    {26, "DEPRECATED", "Requested functionality has been deprecated"},
    {27, "NOT_READY", "The system is not ready"},
    {28, "GPU_NOT_FOUND", "GPU not found"},
    {29, "INVALID_STATE", "Invalid state"},
    {999, "UNKNOWN", "Unknown Error"},
};

enum { KEYS = 96, RULES = 64, PROCESSES = 128, XIDS = 32, GPUS = 32, PARTS = 8, SETS = 8, TEXT = 96 };

typedef struct { char key[32]; char value[TEXT]; } Pair;
typedef struct { char function[64]; int code; long delay_us; } Rule;
typedef struct { unsigned pid, gpu_instance, compute_instance; unsigned long long bytes; char kind; } Process;
typedef struct { unsigned pid, percent; } Use;
typedef struct { unsigned long number; unsigned code, gpu_instance, compute_instance; } Xid;
typedef struct {
    int pairs, rules, processes, uses, xids;
    Pair pair[KEYS];
    Rule rule[RULES];
    Process process[PROCESSES];
    Use use[PROCESSES];
    Xid xid[XIDS];
} Section;
typedef struct { Section card; int parts; Section part[PARTS]; } Card;

static Section host;
static Card card[GPUS];
static int cards;
static int users; /* nvmlInit without its nvmlShutdown */
static long generation; /* counts the first nvmlInit after the last nvmlShutdown: handles of an earlier one are void */
/* The events that a set was told to deliver, and the last one of each card that is no news to it. */
static struct { int used; int listens[GPUS]; unsigned long seen[GPUS]; } set[SETS];
static double grown_mj[GPUS]; /* energy since the library was loaded */
static double grown_at;
static struct stat read_at;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef void *Device;

static const char *get(const Section *section, const char *key) {
    for (int i = 0; i < section->pairs; i++)
        if (!strcmp(section->pair[i].key, key)) return section->pair[i].value;
    return NULL;
}

static int error_code(const char *name) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (!strcmp(ERRORS[i].name, name)) return ERRORS[i].code;
    return atoi(name);
}

static void add_rule(Section *section, const char *function, int code, long delay_us) {
    if (section->rules == RULES) return;
    Rule *rule = &section->rule[section->rules++];
    snprintf(rule->function, sizeof rule->function, "%s", function);
    rule->code = code;
    rule->delay_us = delay_us;
}

static void add_line(Section *section, char *line) {
    char key[32] = "", a[64] = "", b[64] = "", c[64] = "";
    int at = 0;
    if (sscanf(line, "%31s %n", key, &at) != 1 || key[0] == '#') return;
    char *rest = line + at;
    rest[strcspn(rest, "\r\n")] = 0;
    if (!strcmp(key, "error") && sscanf(rest, "%63s %63s", a, b) == 2) add_rule(section, a, error_code(b), 0);
    else if (!strcmp(key, "delay_us") && sscanf(rest, "%63s %63s", a, b) == 2) add_rule(section, a, 0, atol(b));
    else if (!strcmp(key, "process") && section->processes < PROCESSES) {
        Process *process = &section->process[section->processes++];
        process->gpu_instance = process->compute_instance = ~0U;
        int words = sscanf(rest, "%u %63s %63s %u %u", &process->pid, a, c, &process->gpu_instance, &process->compute_instance);
        /* "-" is a driver that does not tell (WDDM): all bits set. */
        process->bytes = a[0] == '-' ? ~0ULL : strtoull(a, NULL, 0);
        process->kind = words >= 3 ? c[0] : 'c';
    } else if (!strcmp(key, "use") && section->uses < PROCESSES) {
        Use *use = &section->use[section->uses++];
        sscanf(rest, "%u %u", &use->pid, &use->percent);
    } else if (!strcmp(key, "xid") && section->xids < XIDS) {
        Xid *xid = &section->xid[section->xids++];
        xid->gpu_instance = xid->compute_instance = ~0U;
        sscanf(rest, "%lu %u %u %u", &xid->number, &xid->code, &xid->gpu_instance, &xid->compute_instance);
    } else if (section->pairs < KEYS) {
        Pair *pair = &section->pair[section->pairs++];
        snprintf(pair->key, sizeof pair->key, "%s", key);
        snprintf(pair->value, sizeof pair->value, "%s", rest);
    }
}

/* Whether a container was given this card or part: CDI adds a variable GPURIG_FAKE_NVML_ONLY_... for each device. */
static int given(const Section *section, int *limited) {
    static const char PREFIX[] = "GPURIG_FAKE_NVML_ONLY_";
    const char *uuid = get(section, "uuid");
    for (char **one = environ; *one; one++) {
        const char *value = strchr(*one, '=');
        if (!value || strncmp(*one, PREFIX, sizeof PREFIX - 1)) continue;
        *limited = 1;
        if (uuid && !strcmp(value + 1, uuid)) return 1;
    }
    return 0;
}

/* Leaves what was given; without any variable, everything was. A card stays for one of its parts. */
static void keep_given(void) {
    int kept = 0, limited = 0;
    for (int n = 0; n < cards; n++) {
        int parts = 0, whole = given(&card[n].card, &limited);
        for (int p = 0; p < card[n].parts; p++)
            if (given(&card[n].part[p], &limited)) card[n].part[parts++] = card[n].part[p];
        if (!limited) return;
        if (!whole && !parts) continue;
        card[n].parts = parts;
        card[kept++] = card[n];
    }
    cards = kept;
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Energy is power over time: what a card took until now, it took with the power that the file has told so far. */
static void grow(void) {
    double now = seconds(CLOCK_MONOTONIC), passed = grown_at ? now - grown_at : 0;
    grown_at = now;
    for (int n = 0; n < cards; n++) {
        const char *power = get(&card[n].card, "power_mw");
        if (power) grown_mj[n] += passed * strtod(power, NULL);
    }
}

/* Counts alone: to wipe everything would make six megabytes resident in every program that is measured over this. */
static Section *emptied(Section *section) {
    section->pairs = section->rules = section->processes = section->uses = section->xids = 0;
    return section;
}

/* Reads the file when it is new or has changed, so that a test can pull a card out of a running program. */
static int refresh(void) {
    const char *path = getenv("GPURIG_FAKE_NVML");
    /* NVIDIA's hook adds files to a container, and no variables. */
    if (!path) path = "/etc/gpurig-fake-nvml.txt";
    struct stat now;
    grow();
    if (stat(path, &now)) { cards = 0; memset(&read_at, 0, sizeof read_at); return 0; }
    if (now.st_ino == read_at.st_ino && now.st_size == read_at.st_size && now.st_mtim.tv_sec == read_at.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == read_at.st_mtim.tv_nsec) return 1;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    cards = 0;
    Section *section = emptied(&host);
    char line[256];
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "[gpu]", 5) && cards < GPUS) {
            card[cards].parts = 0;
            section = emptied(&card[cards++].card);
        } else if (!strncmp(line, "[mig]", 5) && cards && card[cards - 1].parts < PARTS)
            section = emptied(&card[cards - 1].part[card[cards - 1].parts++]);
        else add_line(section, line);
    }
    fclose(file);
    keep_given();
    read_at = now;
    return 1;
}

static Section *section_at(int number, int part) {
    if (number >= cards || part >= card[number].parts) return NULL;
    return part < 0 ? &card[number].card : &card[number].part[part];
}

/* Numbers UUIDs, so that a handle is its card's for as long as NVML is not begun anew, whatever changes in the file. */
static int identity(int number, int part) {
    static char known[256][TEXT];
    static int knowns;
    const Section *section = section_at(number, part);
    char own[TEXT];
    if (!section) return -1;
    if (get(section, "uuid")) snprintf(own, sizeof own, "%s", get(section, "uuid"));
    else snprintf(own, sizeof own, "%d:%d", number, part);
    for (int i = 0; i < knowns; i++)
        if (!strcmp(known[i], own)) return i;
    if (knowns == sizeof known / sizeof *known) return -1;
    strcpy(known[knowns], own);
    return knowns++;
}

enum { HANDLES = 0x1000, FIRST_HANDLE = 0x101 };

static Device handle_of(int number, int part) {
    return (Device)(uintptr_t)(generation * HANDLES + FIRST_HANDLE + identity(number, part));
}

static Section *section_of(Device device, int *number, int *part) {
    long wanted = (long)(uintptr_t)device - generation * HANDLES - FIRST_HANDLE;
    for (int n = 0; n < cards && wanted >= 0; n++)
        for (int p = -1; p < card[n].parts; p++) {
            if (identity(n, p) != wanted) continue;
            if (number) *number = n;
            if (part) *part = p;
            return section_at(n, p);
        }
    return NULL;
}

static void apply(const Section *section, const char *function, int *code, long *delay_us) {
    for (int i = 0; i < section->rules; i++) {
        const Rule *rule = &section->rule[i];
        if (strcmp(rule->function, "*") && strcmp(rule->function, function)) continue;
        if (rule->delay_us) *delay_us = rule->delay_us;
        if (rule->code) *code = rule->code;
    }
}

static void note(const char *function) {
    const char *path = get(&host, "log");
    if (!path) return;
    int out = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    char line[80];
    int size = snprintf(line, sizeof line, "%s\n", function);
    if (out >= 0) {
        if (write(out, line, (size_t)size) < 0) { /* the log is the test's own affair */ }
        close(out);
    }
}

static void pause_for(long delay_us) {
    struct timespec left = {delay_us / 1000000, delay_us % 1000000 * 1000};
    if (delay_us > 0) nanosleep(&left, NULL);
}

/* Every call passes here: the rules of the host, then those of its device, decide error and delay. On SUCCESS the
 * lock is held and *section set; leave() gives it back. */
static int enter(const char *function, Device device, Section **section) {
    int code = SUCCESS;
    long delay_us = 0;
    pthread_mutex_lock(&lock);
    int readable = refresh();
    Section *own = device ? section_of(device, NULL, NULL) : &host;
    note(function);
    apply(&host, function, &code, &delay_us);
    if (own && own != &host) apply(own, function, &code, &delay_us);
    if (delay_us) {
        pthread_mutex_unlock(&lock);
        pause_for(delay_us);
        pthread_mutex_lock(&lock);
        own = device ? section_of(device, NULL, NULL) : &host;
    }
    if (!code && !users && device) code = UNINITIALIZED;
    if (!code && !readable) code = DRIVER_NOT_LOADED;
    if (!code && !own) code = INVALID_ARGUMENT;
    if (code) pthread_mutex_unlock(&lock);
    else *section = own;
    return code;
}

static int leave(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}
