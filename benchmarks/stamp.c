/* The program whose start is measured: appends "TAG NANOSECONDS" (CLOCK_REALTIME) to FILE, exits 0. */
/* usage: stamp FILE TAG */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec now;
    char line[256];
    clock_gettime(CLOCK_REALTIME, &now);
    if (argc != 3) {
        return 2;
    }
    int file = open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0666);
    int length = snprintf(line, sizeof line, "%s %lld%09ld\n", argv[2], (long long)now.tv_sec, now.tv_nsec);
    return write(file, line, length) != length;
}
