/* Stands between a process and libc: counts, refuses or records the calls that touch one directory.
 *
 *   SHIM_FOLDER   only calls on paths below it matter
 *   SHIM_COUNTER  a file of 8 bytes, shared by all processes: how many calls mattered so far
 *   SHIM_CALLS    which calls matter, as letters: see CALLS in vfs.py
 *   SHIM_FROM     the first call that is refused, from 1; none if absent
 *   SHIM_TO       the last one
 *   SHIM_ERRNO    with what
 *   SHIM_TRACE    a file that gets a record of every call that changed something
 *
 * Own work is done by raw system calls, so that nothing here is counted or refused.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static const char *calls;
static uint64_t *counter;
static uint64_t first = UINT64_MAX, last = UINT64_MAX;
static int refusal, trace = -1;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SHIM_FOLDER"), *path = getenv("SHIM_COUNTER");
    if (!name || !path) return;
    calls = getenv("SHIM_CALLS");
    if (getenv("SHIM_FROM")) first = strtoull(getenv("SHIM_FROM"), NULL, 10);
    if (getenv("SHIM_TO")) last = strtoull(getenv("SHIM_TO"), NULL, 10);
    if (getenv("SHIM_ERRNO")) refusal = atoi(getenv("SHIM_ERRNO"));
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *shared = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (shared == MAP_FAILED) return;
    if (getenv("SHIM_TRACE")) {
        fd = syscall(SYS_openat, AT_FDCWD, getenv("SHIM_TRACE"), O_WRONLY | O_APPEND | O_CLOEXEC);
        /* Out of the way: programs number their own files from 3, and some close what is low. */
        trace = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
        syscall(SYS_close, fd);
    }
    strncpy(folder, name, sizeof folder - 1);
    folder_length = strlen(folder);
    counter = shared;
}

static int is_below(const char *path) {
    return counter && !strncmp(path, folder, folder_length)
        && (path[folder_length] == '/' || !path[folder_length]);
}

/* The path that (dir, path) names, without links being followed. */
static int whole(int dir, const char *path, char *found) {
    int saved = errno;
    if (!path) return 0;
    if (path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        ssize_t length;
        if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        length = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
        errno = saved;
        if (length < 0) return 0;
        base[length] = 0;
        if (snprintf(found, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return is_below(found);
}

static int of_file(int fd, char *found) {
    char link[64];
    int saved = errno;
    if (!counter) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, found, PATH_MAX - 1);
    errno = saved;
    if (length < 0) return 0;
    found[length] = 0;
    return is_below(found);
}

static int is_refused(char call) {
    if (!calls || !strchr(calls, call)) return 0;
    uint64_t number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    if (number < first || number > last || !refusal) return 0;
    errno = refusal;
    return 1;
}

/* call, lengths of two paths, offset, length of data; then these. One write, so records are whole. */
static void record(char call, const char *one, const char *other, int64_t offset,
                   const void *data, size_t size) {
    if (trace < 0) return;
    int saved = errno;
    struct __attribute__((packed)) { char call; uint16_t one, other; int64_t offset; uint64_t size; }
        head = {call, strlen(one), strlen(other), offset, size};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)one, head.one},
                            {(void *)other, head.other}, {(void *)data, data ? size : 0}};
    syscall(SYS_writev, trace, parts, 4);
    errno = saved;
}

#define REAL(name) ({ static __typeof__(&name) real; \
    if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static int opened(int dir, const char *path, int flags, mode_t mode,
                  int (*real)(int, const char *, int, mode_t)) {
    char found[PATH_MAX];
    if (!counter || !whole(dir, path, found)) return real(dir, path, flags, mode);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    int is_there = !syscall(SYS_faccessat, AT_FDCWD, found, F_OK, 0);
    char call = (flags & O_CREAT) && !is_there ? 'c' : writes ? 'o' : 'r';
    if (is_refused(call)) return -1;
    int fd = real(dir, path, flags, mode);
    if (fd >= 0 && call == 'c') record('c', found, "", 0, NULL, 0);
    if (fd >= 0 && writes && (flags & O_TRUNC)) record('t', found, "", 0, NULL, 0);
    return fd;
}

static int by_syscall(int dir, const char *path, int flags, mode_t mode) {
    return syscall(SYS_openat, dir, path, flags, mode);
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode, by_syscall); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode, by_syscall); }
int openat(int dir, const char *path, int flags, ...) { MODE return opened(dir, path, flags, mode, by_syscall); }
int openat64(int dir, const char *path, int flags, ...) { MODE return opened(dir, path, flags, mode, by_syscall); }

static ssize_t written(int fd, const void *data, size_t size, int64_t offset) {
    char found[PATH_MAX];
    if (!of_file(fd, found))
        return offset < 0 ? syscall(SYS_write, fd, data, size)
                          : syscall(SYS_pwrite64, fd, data, size, offset);
    if (is_refused('w')) return -1;
    int64_t at = offset < 0 ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : offset;
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, size)
                              : syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) record('w', found, "", at, data, done);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return written(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return written(fd, data, size, offset); }

static int moved(char call, int dir, const char *old, int other, const char *fresh, int flags) {
    char one[PATH_MAX], two[PATH_MAX];
    int matters = counter && whole(dir, old, one) && whole(other, fresh, two);
    if (matters && is_refused(call)) return -1;
    int done = call == 'm' ? syscall(SYS_renameat, dir, old, other, fresh)
                           : syscall(SYS_linkat, dir, old, other, fresh, flags);
    if (!done && matters) record(call, one, two, 0, NULL, 0);
    return done;
}

int rename(const char *old, const char *fresh) { return moved('m', AT_FDCWD, old, AT_FDCWD, fresh, 0); }
int renameat(int dir, const char *old, int other, const char *fresh) { return moved('m', dir, old, other, fresh, 0); }
int link(const char *old, const char *fresh) { return moved('l', AT_FDCWD, old, AT_FDCWD, fresh, 0); }
int linkat(int dir, const char *old, int other, const char *fresh, int flags) { return moved('l', dir, old, other, fresh, flags); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char found[PATH_MAX];
    int matters = counter && whole(dir, path, found);
    if (matters && is_refused('d')) return -1;
    int done = syscall(SYS_mkdirat, dir, path, mode);
    if (!done && matters) record('d', found, "", 0, NULL, 0);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int mknodat(int dir, const char *path, mode_t mode, dev_t device) {
    char found[PATH_MAX];
    int matters = counter && whole(dir, path, found);
    if (matters && is_refused('c')) return -1;
    int done = syscall(SYS_mknodat, dir, path, mode, device);
    if (!done && matters) record('c', found, "", 0, NULL, 0);
    return done;
}
int mknod(const char *path, mode_t mode, dev_t device) { return mknodat(AT_FDCWD, path, mode, device); }

int unlinkat(int dir, const char *path, int flags) {
    char found[PATH_MAX];
    int matters = counter && whole(dir, path, found);
    if (matters && is_refused('u')) return -1;
    int done = syscall(SYS_unlinkat, dir, path, flags);
    if (!done && matters) record('u', found, "", 0, NULL, 0);
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

static int synced(int fd, long number) {
    char found[PATH_MAX];
    int matters = of_file(fd, found);
    if (matters && is_refused('s')) return -1;
    int done = syscall(number, fd);
    if (!done && matters) record('s', found, "", 0, NULL, 0);
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int cut(int fd, int64_t size) {
    char found[PATH_MAX];
    int matters = of_file(fd, found);
    int done = syscall(SYS_ftruncate, fd, size);
    if (!done && matters) record('t', found, "", size, NULL, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }
