/* A libnvidia-ml.so.1 that tells what a text file says: README.md beside it describes the file.
 *
 * NVIDIA's real Python binding, exporters and containers run over it, so that GPUs, missing fields, errors and delays
 * are a test's to choose. Types and numbers follow NVIDIA's public nvml.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9 };

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
    {13, "FUNCTION_NOT_FOUND", "Function Not Found"},
    {14, "CORRUPTED_INFOROM", "Corrupted infoROM"},
    {15, "GPU_IS_LOST", "GPU is lost"},
    {16, "RESET_REQUIRED", "GPU requires reset"},
    {17, "OPERATING_SYSTEM", "The operating system has blocked the request"},
    {18, "LIB_RM_VERSION_MISMATCH", "RM has detected an NVML/RM version mismatch."},
    {21, "NO_DATA", "No data"},
    {26, "DEPRECATED", "Requested functionality has been deprecated"},
    {999, "UNKNOWN", "Unknown Error"},
};

enum { KEYS = 64, RULES = 32, PROCESSES = 128, GPUS = 32, PARTS = 8, TEXT = 96 };

typedef struct { char key[32]; char value[TEXT]; } Pair;
typedef struct { char function[64]; int code; long delay_us; } Rule;
typedef struct { unsigned pid, gpu_instance, compute_instance; unsigned long long bytes; char kind; } Process;
typedef struct {
    int pairs, rules, processes;
    Pair pair[KEYS];
    Rule rule[RULES];
    Process process[PROCESSES];
} Section;
typedef struct { Section card; int parts; Section part[PARTS]; } Card;

static Section host;
static Card card[GPUS];
static int cards;
static int users; /* nvmlInit without its nvmlShutdown */
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

/* Reads the file when it is new or has changed, so that a test can pull a card out of a running program. */
static int refresh(void) {
    const char *path = getenv("GPURIG_FAKE_NVML");
    /* NVIDIA's hook adds files to a container, and no variables. */
    if (!path) path = "/etc/gpurig-fake-nvml.txt";
    struct stat now;
    if (stat(path, &now)) { cards = 0; memset(&read_at, 0, sizeof read_at); return 0; }
    if (now.st_ino == read_at.st_ino && now.st_size == read_at.st_size && now.st_mtim.tv_sec == read_at.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == read_at.st_mtim.tv_nsec) return 1;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    memset(&host, 0, sizeof host);
    memset(card, 0, sizeof card);
    cards = 0;
    Section *section = &host;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "[gpu]", 5) && cards < GPUS) section = &card[cards++].card;
        else if (!strncmp(line, "[mig]", 5) && cards && card[cards - 1].parts < PARTS)
            section = &card[cards - 1].part[card[cards - 1].parts++];
        else add_line(section, line);
    }
    fclose(file);
    keep_given();
    read_at = now;
    return 1;
}

/* A handle is a number that outlives a change of the file: 0x100, the card * 16, the part + 1. */
static Device handle_of(int number, int part) { return (Device)(uintptr_t)(0x100 + number * 16 + part + 1); }

static Section *section_of(Device device, int *number, int *part) {
    long slot = (long)(uintptr_t)device - 0x100;
    int n = (int)(slot / 16), p = (int)(slot % 16) - 1;
    if (slot < 0 || n >= cards || p >= card[n].parts) return NULL;
    if (number) *number = n;
    if (part) *part = p;
    return p < 0 ? &card[n].card : &card[n].part[p];
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

static int text_value(const char *function, Device device, const char *key, char *out, unsigned size) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    const char *value = get(section, key);
    if (!value) return leave(NOT_SUPPORTED);
    if (strlen(value) >= size) return leave(INSUFFICIENT_SIZE);
    strcpy(out, value);
    return leave(SUCCESS);
}

static int number_value(const char *function, Device device, const char *key, unsigned long long *out) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    const char *value = get(section, key);
    if (!value) return leave(NOT_SUPPORTED);
    *out = strtoull(value, NULL, 0);
    return leave(SUCCESS);
}

static int unsigned_value(const char *function, Device device, const char *key, unsigned *out) {
    unsigned long long wide = 0;
    int code = number_value(function, device, key, &wide);
    if (!code) *out = (unsigned)wide;
    return code;
}

/* Two numbers of one call: both keys are needed, the second falls back to the first. */
static int pair_value(const char *function, Device device, const char *first, const char *second, unsigned *a, unsigned *b) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    const char *one = get(section, first), *two = get(section, second);
    if (!one) return leave(NOT_SUPPORTED);
    *a = (unsigned)strtoul(one, NULL, 0);
    *b = (unsigned)strtoul(two ? two : one, NULL, 0);
    return leave(SUCCESS);
}

#define TEXT_CALL(name, key) \
    API int name(Device device, char *out, unsigned size) { return text_value(#name, device, key, out, size); }
#define UNSIGNED_CALL(name, key) \
    API int name(Device device, unsigned *out) { return unsigned_value(#name, device, key, out); }
#define WIDE_CALL(name, key) \
    API int name(Device device, unsigned long long *out) { return number_value(#name, device, key, out); }
#define PAIR_CALL(name, first, second) \
    API int name(Device device, unsigned *a, unsigned *b) { return pair_value(#name, device, first, second, a, b); }

static int start(const char *function) {
    Section *section;
    int code = enter(function, NULL, &section);
    if (code) return code;
    users++;
    return leave(SUCCESS);
}

API int nvmlInit(void) { return start("nvmlInit"); }
API int nvmlInit_v2(void) { return start("nvmlInit_v2"); }
API int nvmlInitWithFlags(unsigned flags) { (void)flags; return start("nvmlInitWithFlags"); }

API int nvmlShutdown(void) {
    Section *section;
    int code = enter("nvmlShutdown", NULL, &section);
    if (code) return code;
    if (!users) return leave(UNINITIALIZED);
    users--;
    return leave(SUCCESS);
}

API const char *nvmlErrorString(int code) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == code) return ERRORS[i].words;
    return "Unknown Error";
}

API int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    return text_value("nvmlSystemGetDriverVersion", NULL, "driver", out, size);
}
API int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
    return text_value("nvmlSystemGetNVMLVersion", NULL, "nvml", out, size);
}
API int nvmlSystemGetCudaDriverVersion(int *out) {
    return unsigned_value("nvmlSystemGetCudaDriverVersion", NULL, "cuda", (unsigned *)out);
}
API int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    return unsigned_value("nvmlSystemGetCudaDriverVersion_v2", NULL, "cuda", (unsigned *)out);
}

static int count(const char *function, unsigned *out) {
    Section *section;
    int code = enter(function, NULL, &section);
    if (code) return code;
    if (!users) return leave(UNINITIALIZED);
    *out = (unsigned)cards;
    return leave(SUCCESS);
}

API int nvmlDeviceGetCount(unsigned *out) { return count("nvmlDeviceGetCount", out); }
API int nvmlDeviceGetCount_v2(unsigned *out) { return count("nvmlDeviceGetCount_v2", out); }

/* The device's own rules hold for getting its handle as well: a lost card has none. */
static int give_handle(const char *function, int number, int part, Device *out) {
    Section *section;
    int code = enter(function, handle_of(number, part), &section);
    if (code) return code;
    *out = handle_of(number, part);
    return leave(SUCCESS);
}

static int by_index(const char *function, unsigned index, Device *out) {
    return index < GPUS ? give_handle(function, (int)index, -1, out) : INVALID_ARGUMENT;
}

API int nvmlDeviceGetHandleByIndex(unsigned index, Device *out) { return by_index("nvmlDeviceGetHandleByIndex", index, out); }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    return by_index("nvmlDeviceGetHandleByIndex_v2", index, out);
}

static int by_value(const char *function, const char *key, const char *value, Device *out) {
    Section *section;
    int code = enter(function, NULL, &section);
    if (code) return code;
    for (int n = 0; n < cards; n++)
        for (int p = -1; p < card[n].parts; p++) {
            const char *own = get(p < 0 ? &card[n].card : &card[n].part[p], key);
            if (own && !strcasecmp(own, value)) { leave(SUCCESS); return give_handle(function, n, p, out); }
        }
    return leave(NOT_FOUND);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    return by_value("nvmlDeviceGetHandleByUUID", "uuid", uuid, out);
}
API int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, Device *out) {
    return by_value("nvmlDeviceGetHandleByPciBusId_v2", "pci", pci, out);
}

API int nvmlDeviceGetIndex(Device device, unsigned *out) {
    Section *section;
    int number = 0, part = -1, code = enter("nvmlDeviceGetIndex", device, &section);
    if (code) return code;
    section_of(device, &number, &part);
    *out = (unsigned)(part < 0 ? number : part);
    return leave(SUCCESS);
}

TEXT_CALL(nvmlDeviceGetName, "name")
TEXT_CALL(nvmlDeviceGetUUID, "uuid")
TEXT_CALL(nvmlDeviceGetSerial, "serial")
TEXT_CALL(nvmlDeviceGetVbiosVersion, "vbios")
UNSIGNED_CALL(nvmlDeviceGetMinorNumber, "minor")
UNSIGNED_CALL(nvmlDeviceGetBrand, "brand")
UNSIGNED_CALL(nvmlDeviceGetArchitecture, "architecture")

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
} Pci;

static int pci(const char *function, Device device, Pci *out) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    const char *value = get(section, "pci");
    if (!value) return leave(NOT_SUPPORTED);
    memset(out, 0, sizeof *out);
    snprintf(out->address, sizeof out->address, "%s", value);
    sscanf(value, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", out->domain & 0xFFFF, out->bus & 0xFF, out->device & 0xFF);
    const char *id = get(section, "pci_id");
    out->id = id ? (unsigned)strtoul(id, NULL, 0) : 0x10DE;
    return leave(SUCCESS);
}

API int nvmlDeviceGetPciInfo(Device device, Pci *out) { return pci("nvmlDeviceGetPciInfo", device, out); }
API int nvmlDeviceGetPciInfo_v2(Device device, Pci *out) { return pci("nvmlDeviceGetPciInfo_v2", device, out); }
API int nvmlDeviceGetPciInfo_v3(Device device, Pci *out) { return pci("nvmlDeviceGetPciInfo_v3", device, out); }

API int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    Section *section;
    int code = enter("nvmlDeviceGetCudaComputeCapability", device, &section);
    if (code) return code;
    const char *value = get(section, "compute");
    if (!value || sscanf(value, "%d.%d", major, minor) != 2) return leave(NOT_SUPPORTED);
    return leave(SUCCESS);
}

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;

static int memory(const char *function, Device device, Memory2 *out) {
    Section *section;
    int code = enter(function, device, &section);
    if (code) return code;
    const char *total = get(section, "memory_total"), *used = get(section, "memory_used");
    const char *reserved = get(section, "memory_reserved");
    if (!total) return leave(NOT_SUPPORTED);
    out->total = strtoull(total, NULL, 0);
    out->used = used ? strtoull(used, NULL, 0) : 0;
    out->reserved = reserved ? strtoull(reserved, NULL, 0) : 0;
    out->free = out->total - out->used - out->reserved;
    return leave(SUCCESS);
}

/* The first version counts what the driver keeps for itself as used. */
API int nvmlDeviceGetMemoryInfo(Device device, Memory *out) {
    Memory2 wide;
    int code = memory("nvmlDeviceGetMemoryInfo", device, &wide);
    if (!code) { out->total = wide.total; out->free = wide.free; out->used = wide.used + wide.reserved; }
    return code;
}
API int nvmlDeviceGetMemoryInfo_v2(Device device, Memory2 *out) {
    return memory("nvmlDeviceGetMemoryInfo_v2", device, out);
}

API int nvmlDeviceGetBAR1MemoryInfo(Device device, Memory *out) {
    unsigned long long total = 0;
    int code = number_value("nvmlDeviceGetBAR1MemoryInfo", device, "bar1_total", &total);
    if (!code) { out->total = out->free = total; out->used = 0; }
    return code;
}

typedef struct { unsigned gpu, memory; } Utilization;
API int nvmlDeviceGetUtilizationRates(Device device, Utilization *out) {
    return pair_value("nvmlDeviceGetUtilizationRates", device, "utilization_gpu", "utilization_memory", &out->gpu, &out->memory);
}
PAIR_CALL(nvmlDeviceGetEncoderUtilization, "utilization_encoder", "sampling_period")
PAIR_CALL(nvmlDeviceGetDecoderUtilization, "utilization_decoder", "sampling_period")

API int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *out) {
    (void)sensor;
    return unsigned_value("nvmlDeviceGetTemperature", device, "temperature", out);
}
typedef struct { unsigned version; int sensor; int temperature; } Temperature;
API int nvmlDeviceGetTemperatureV(Device device, Temperature *out) {
    return unsigned_value("nvmlDeviceGetTemperatureV", device, "temperature", (unsigned *)&out->temperature);
}
API int nvmlDeviceGetTemperatureThreshold(Device device, int kind, unsigned *out) {
    static const char *const KEY[] = {"temperature_shutdown", "temperature_slowdown", "temperature_memory_max", "temperature_max"};
    if (kind < 0 || kind > 3) return NOT_SUPPORTED;
    return unsigned_value("nvmlDeviceGetTemperatureThreshold", device, KEY[kind], out);
}

UNSIGNED_CALL(nvmlDeviceGetPowerUsage, "power_mw")
UNSIGNED_CALL(nvmlDeviceGetEnforcedPowerLimit, "power_limit_mw")
UNSIGNED_CALL(nvmlDeviceGetPowerManagementLimit, "power_limit_mw")
UNSIGNED_CALL(nvmlDeviceGetPowerManagementDefaultLimit, "power_default_mw")
PAIR_CALL(nvmlDeviceGetPowerManagementLimitConstraints, "power_min_mw", "power_max_mw")
WIDE_CALL(nvmlDeviceGetTotalEnergyConsumption, "energy_mj")

static int clock_value(const char *function, Device device, const char *prefix, int kind, unsigned *out) {
    static const char *const KIND[] = {"graphics", "sm", "memory", "video"};
    char key[48];
    if (kind < 0 || kind > 3) return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "%s_%s", prefix, KIND[kind]);
    return unsigned_value(function, device, key, out);
}
API int nvmlDeviceGetClockInfo(Device device, int kind, unsigned *out) {
    return clock_value("nvmlDeviceGetClockInfo", device, "clock", kind, out);
}
API int nvmlDeviceGetMaxClockInfo(Device device, int kind, unsigned *out) {
    return clock_value("nvmlDeviceGetMaxClockInfo", device, "max_clock", kind, out);
}

UNSIGNED_CALL(nvmlDeviceGetFanSpeed, "fan")
UNSIGNED_CALL(nvmlDeviceGetNumFans, "fans")
API int nvmlDeviceGetFanSpeed_v2(Device device, unsigned fan, unsigned *out) {
    (void)fan;
    return unsigned_value("nvmlDeviceGetFanSpeed_v2", device, "fan", out);
}

WIDE_CALL(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle_reasons")
WIDE_CALL(nvmlDeviceGetCurrentClocksEventReasons, "throttle_reasons")
WIDE_CALL(nvmlDeviceGetSupportedClocksThrottleReasons, "throttle_supported")
WIDE_CALL(nvmlDeviceGetSupportedClocksEventReasons, "throttle_supported")

PAIR_CALL(nvmlDeviceGetEccMode, "ecc_mode", "ecc_mode_pending")
API int nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, unsigned long long *out) {
    static const char *const KEY[2][2] = {{"ecc_corrected_volatile", "ecc_corrected_aggregate"},
                                          {"ecc_uncorrected_volatile", "ecc_uncorrected_aggregate"}};
    if (kind < 0 || kind > 1 || counter < 0 || counter > 1) return INVALID_ARGUMENT;
    return number_value("nvmlDeviceGetTotalEccErrors", device, KEY[kind][counter], out);
}
API int nvmlDeviceGetRetiredPages(Device device, int cause, unsigned *number, unsigned long long *out) {
    unsigned pages = 0, room = *number;
    int code = unsigned_value("nvmlDeviceGetRetiredPages", device, cause ? "retired_double_bit" : "retired_single_bit", &pages);
    if (code) return code;
    *number = pages;
    if (!pages) return SUCCESS;
    if (!out || room < pages) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < pages; i++) out[i] = 0x1000ULL * (i + 1);
    return SUCCESS;
}
UNSIGNED_CALL(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pending")
API int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    int code = pair_value("nvmlDeviceGetRemappedRows", device, "remapped_corrected", "remapped_uncorrected", corrected, uncorrected);
    if (!code) *pending = *failed = 0;
    return code;
}

UNSIGNED_CALL(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
UNSIGNED_CALL(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
UNSIGNED_CALL(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
UNSIGNED_CALL(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
UNSIGNED_CALL(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
API int nvmlDeviceGetPcieThroughput(Device device, int counter, unsigned *out) {
    return unsigned_value("nvmlDeviceGetPcieThroughput", device, counter ? "pcie_rx_kb" : "pcie_tx_kb", out);
}
UNSIGNED_CALL(nvmlDeviceGetPerformanceState, "pstate")
UNSIGNED_CALL(nvmlDeviceGetPersistenceMode, "persistence")
UNSIGNED_CALL(nvmlDeviceGetComputeMode, "compute_mode")
UNSIGNED_CALL(nvmlDeviceGetDisplayActive, "display_active")
UNSIGNED_CALL(nvmlDeviceGetDisplayMode, "display_mode")

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

typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; } Sample;
API int nvmlDeviceGetProcessUtilization(Device device, Sample *out, unsigned *number, unsigned long long since_us) {
    Section *section;
    int code = enter("nvmlDeviceGetProcessUtilization", device, &section);
    if (code) return code;
    const char *use = get(section, "utilization_gpu");
    if (!use) return leave(NOT_SUPPORTED);
    unsigned room = *number;
    *number = (unsigned)section->processes;
    if (!section->processes) return leave(NOT_FOUND);
    if (!out || room < *number) return leave(INSUFFICIENT_SIZE);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    (void)since_us;
    for (int i = 0; i < section->processes; i++)
        out[i] = (Sample){section->process[i].pid, (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000,
                          (unsigned)strtoul(use, NULL, 0) / (unsigned)section->processes, 0, 0, 0};
    return leave(SUCCESS);
}

PAIR_CALL(nvmlDeviceGetMigMode, "mig_mode", "mig_mode_pending")
API int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *out) {
    Section *section;
    int code = enter("nvmlDeviceGetMaxMigDeviceCount", device, &section);
    if (code) return code;
    *out = get(section, "mig_mode") ? PARTS - 1 : 0;
    return leave(SUCCESS);
}
API int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *out) {
    Section *section;
    int number = 0, part = 0, code = enter("nvmlDeviceGetMigDeviceHandleByIndex", device, &section);
    if (code) return code;
    section_of(device, &number, &part);
    if (part >= 0) return leave(INVALID_ARGUMENT);
    if (index >= (unsigned)card[number].parts) return leave(NOT_FOUND);
    leave(SUCCESS);
    return give_handle("nvmlDeviceGetMigDeviceHandleByIndex", number, (int)index, out);
}
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *out) {
    Section *section;
    int number = 0, code = enter("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, &section);
    if (code) return code;
    section_of(device, &number, NULL);
    *out = handle_of(number, -1);
    return leave(SUCCESS);
}
API int nvmlDeviceIsMigDeviceHandle(Device device, unsigned *out) {
    Section *section;
    int part = -1, code = enter("nvmlDeviceIsMigDeviceHandle", device, &section);
    if (code) return code;
    section_of(device, NULL, &part);
    *out = part >= 0;
    return leave(SUCCESS);
}
UNSIGNED_CALL(nvmlDeviceGetGpuInstanceId, "gpu_instance")
UNSIGNED_CALL(nvmlDeviceGetComputeInstanceId, "compute_instance")
