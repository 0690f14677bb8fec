/*
 * Measures the turns of an event loop: preloaded (LD_PRELOAD) into nginx, it stands before epoll_wait and notes how much
 * processor time the main thread of each process used between two calls. Built and read by `scripts/bench turns`.
 *
 * The figures are in the file that ZONEMESH_TURNS names, one slot of 64-bit words a process, so that the benchmark can
 * look at them and set them to zero while nginx runs. It is mapped before workers are forked and lose their rights.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 64, LONG_NS = 5000000 };

/* Words of a slot, as the benchmark reads them. */
struct slot {
    _Atomic uint64_t pid;
    uint64_t longest; /* nanoseconds */
    uint64_t count;
    uint64_t beyond;  /* turns longer than LONG_NS */
    uint64_t sum;     /* nanoseconds */
    uint64_t unused[3];
};

typedef int (*wait_fn)(int, struct epoll_event *, int, int);

static struct slot *slots;
static wait_fn next_wait;

static struct slot *own;
static pid_t own_pid;
static uint64_t began; /* 0: no turn has begun */

__attribute__((constructor)) static void begin(void)
{
    next_wait = (wait_fn)dlsym(RTLD_NEXT, "epoll_wait");
    const char *path = getenv("ZONEMESH_TURNS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *memory = mmap(NULL, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) slots = memory;
    close(fd);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* A slot of this process; a forked one takes its own. */
static void find_slot(pid_t pid)
{
    own_pid = pid;
    own = NULL;
    began = 0;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t nobody = 0;
        if (__atomic_compare_exchange_n((uint64_t *)&slots[i].pid, &nobody, (uint64_t)pid, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            own = &slots[i];
            return;
        }
    }
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    pid_t pid = getpid();
    /* Other threads are none of the event loop's. */
    int counts = slots && (pid_t)syscall(SYS_gettid) == pid;
    if (counts && pid != own_pid) find_slot(pid);
    if (counts && own && began) {
        uint64_t took = now() - began;
        if (took > own->longest) own->longest = took;
        own->beyond += took > LONG_NS;
        own->sum += took;
        own->count++;
    }
    int ready = next_wait(epoll, events, most, timeout);
    if (counts) began = now();
    return ready;
}
