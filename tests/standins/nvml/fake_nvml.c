/* A libnvidia-ml.so.1 that tells what a text file says: README.md beside it describes the file.
 *
 * NVIDIA's real Python binding, exporters and containers run over it, so that GPUs, missing fields, errors and delays
 * are a test's to choose. Types and numbers follow NVIDIA's public nvml.h. */
#include "driving_file.h"

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
    if (!users++) generation++;
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
    if (!--users) memset(set, 0, sizeof set);
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
/* With "+power" behind it, the counter goes on with the card's power. */
static int energy(const char *function, Device device, unsigned long long *out) {
    Section *section;
    int number = 0, part = -1, code = enter(function, device, &section);
    if (code) return code;
    const char *value = get(section, "energy_mj");
    if (!value) return leave(NOT_SUPPORTED);
    section_of(device, &number, &part);
    *out = strtoull(value, NULL, 0);
    if (strstr(value, "+power") && part < 0) *out += (unsigned long long)grown_mj[number];
    return leave(SUCCESS);
}
API int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *out) {
    return energy("nvmlDeviceGetTotalEnergyConsumption", device, out);
}

typedef struct {
    unsigned id, scope;
    long long time_us, latency_us;
    int type, code;
    union { unsigned small; unsigned long long wide; } value;
} Field;
enum { MEMORY_TEMPERATURE = 82, TOTAL_ENERGY = 83, UNSIGNED = 1, UNSIGNED_LONG_LONG = 3 };
API int nvmlDeviceGetFieldValues(Device device, int number, Field *field) {
    Section *section;
    int code = enter("nvmlDeviceGetFieldValues", device, &section);
    if (code) return code;
    leave(SUCCESS);
    for (int i = 0; i < number; i++) {
        field[i].time_us = (long long)(seconds(CLOCK_REALTIME) * 1e6);
        field[i].latency_us = 0;
        field[i].value.wide = 0;
        field[i].type = field[i].id == TOTAL_ENERGY ? UNSIGNED_LONG_LONG : UNSIGNED;
        field[i].code = NOT_SUPPORTED;
        if (field[i].id == MEMORY_TEMPERATURE)
            field[i].code = unsigned_value("nvmlDeviceGetFieldValues", device, "temperature_memory", &field[i].value.small);
        if (field[i].id == TOTAL_ENERGY) field[i].code = energy("nvmlDeviceGetFieldValues", device, &field[i].value.wide);
    }
    return SUCCESS;
}

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
static unsigned flag(const Section *section, const char *key) {
    const char *value = get(section, key);
    return value ? (unsigned)strtoul(value, NULL, 0) : 0;
}
API int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    Section *section;
    int code = enter("nvmlDeviceGetRemappedRows", device, &section);
    if (code) return code;
    if (!get(section, "remapped_corrected")) return leave(NOT_SUPPORTED);
    *corrected = flag(section, "remapped_corrected");
    *uncorrected = flag(section, "remapped_uncorrected");
    *pending = flag(section, "remapped_pending");
    *failed = flag(section, "remapped_failed");
    return leave(SUCCESS);
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

#include "processes.h"
#include "events.h"

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
