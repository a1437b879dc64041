/* Events of fake cards: Xid errors, for sets that listen to them. */
WIDE_CALL(nvmlDeviceGetSupportedEventTypes, "events")

/* A set is its number + 1. */
static int set_number(void *handle) {
    long number = (long)(uintptr_t)handle - 1;
    return number >= 0 && number < SETS && set[number].used ? (int)number : -1;
}

API int nvmlEventSetCreate(void **out) {
    Section *section;
    int code = enter("nvmlEventSetCreate", NULL, &section);
    if (code) return code;
    if (!users) return leave(UNINITIALIZED);
    for (int i = 0; i < SETS; i++) {
        if (set[i].used) continue;
        memset(&set[i], 0, sizeof set[i]);
        set[i].used = 1;
        *out = (void *)(uintptr_t)(i + 1);
        return leave(SUCCESS);
    }
    return leave(INSUFFICIENT_RESOURCES);
}

API int nvmlEventSetFree(void *handle) {
    Section *section;
    int code = enter("nvmlEventSetFree", NULL, &section);
    if (code) return code;
    int number = set_number(handle);
    if (number < 0) return leave(INVALID_ARGUMENT);
    set[number].used = 0;
    return leave(SUCCESS);
}

API int nvmlDeviceRegisterEvents(Device device, unsigned long long types, void *handle) {
    Section *section;
    int n = 0, part = -1, code = enter("nvmlDeviceRegisterEvents", device, &section);
    if (code) return code;
    section_of(device, &n, &part);
    int number = set_number(handle);
    if (number < 0 || part >= 0) return leave(INVALID_ARGUMENT);
    if (!get(section, "events") || types & ~strtoull(get(section, "events"), NULL, 0)) return leave(NOT_SUPPORTED);
    set[number].listens[n] = 1;
    for (int i = 0; i < section->xids; i++)
        if (section->xid[i].number > set[number].seen[n]) set[number].seen[n] = section->xid[i].number;
    return leave(SUCCESS);
}

typedef struct { Device device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
enum { XID_CRITICAL_ERROR = 8 };

/* The next event of a set, with the lock held: TIMEOUT without one, an error where a card of the set has one. */
static int next_event(const char *function, int number, Event *out) {
    for (int n = 0; n < cards; n++) {
        const Section *section = &card[n].card;
        int code = SUCCESS;
        long delay_us = 0;
        if (!set[number].listens[n]) continue;
        for (int i = 0; i < section->xids; i++) {
            const Xid *xid = &section->xid[i];
            if (xid->number <= set[number].seen[n]) continue;
            set[number].seen[n] = xid->number;
            *out = (Event){handle_of(n, -1), XID_CRITICAL_ERROR, xid->code, xid->gpu_instance, xid->compute_instance};
            return SUCCESS;
        }
        apply(section, function, &code, &delay_us);
        if (code) return code;
    }
    return TIMEOUT;
}

static int wait_event(const char *function, void *handle, Event *out, unsigned timeout_ms) {
    double end = seconds(CLOCK_MONOTONIC) + timeout_ms / 1e3;
    for (int first = 1;; first = 0) {
        Section *section;
        int code = SUCCESS;
        if (first) {
            code = enter(function, NULL, &section);
            if (code) return code;
        } else {
            pthread_mutex_lock(&lock);
            if (!refresh()) code = DRIVER_NOT_LOADED;
        }
        int number = set_number(handle);
        if (!code) code = number < 0 ? INVALID_ARGUMENT : next_event(function, number, out);
        pthread_mutex_unlock(&lock);
        if (code != TIMEOUT || seconds(CLOCK_MONOTONIC) >= end) return code;
        pause_for(10000);
    }
}

API int nvmlEventSetWait_v2(void *handle, Event *out, unsigned timeout_ms) {
    return wait_event("nvmlEventSetWait_v2", handle, out, timeout_ms);
}
/* The first version knows no parts. */
API int nvmlEventSetWait(void *handle, void *out, unsigned timeout_ms) {
    Event event;
    int code = wait_event("nvmlEventSetWait", handle, &event, timeout_ms);
    if (!code) memcpy(out, &event, offsetof(Event, gpu_instance));
    return code;
}
