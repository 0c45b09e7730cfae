/* What CPython's modules refer to and no plugin uses, so that the linker leaves the real functions out.
 *
 * The C library resolves host and user names by shared objects of the node (NSS, nss(5)), which a static executable
 * cannot rely on. An import of an extension module from a file would need its dynamic linker. The modules `_socket`,
 * `posix` and `_imp` refer to both. Here every such function fails as its manual page says, and the linker, which
 * warns about the real ones, has nothing to warn about: the build lets any warning of its fail (launcher.py).
 */
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <sys/socket.h>

/* Host, service and protocol names: only _socket calls these. Plugins use numeric addresses (inet_pton(3)). */

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    (void)node, (void)service, (void)hints;
    *found = NULL;
    return EAI_FAIL;
}

void freeaddrinfo(struct addrinfo *list)
{
    (void)list;
}

const char *gai_strerror(int code)
{
    (void)code;
    return "this program resolves no names";
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size, char *service,
                socklen_t service_size, int flags)
{
    (void)address, (void)length, (void)host, (void)host_size, (void)service, (void)service_size, (void)flags;
    return EAI_FAIL;
}

int gethostbyname_r(const char *name, struct hostent *entry, char *buffer, size_t size, struct hostent **result,
                    int *code)
{
    (void)name, (void)entry, (void)buffer, (void)size;
    *result = NULL;
    *code = NO_RECOVERY;
    return EINVAL;
}

int gethostbyaddr_r(const void *address, socklen_t length, int family, struct hostent *entry, char *buffer,
                    size_t size, struct hostent **result, int *code)
{
    (void)address, (void)length, (void)family, (void)entry, (void)buffer, (void)size;
    *result = NULL;
    *code = NO_RECOVERY;
    return EINVAL;
}

struct servent *getservbyname(const char *name, const char *protocol)
{
    (void)name, (void)protocol;
    return NULL;
}

struct servent *getservbyport(int port, const char *protocol)
{
    (void)port, (void)protocol;
    return NULL;
}

struct protoent *getprotobyname(const char *name)
{
    (void)name;
    return NULL;
}

/* Users and groups: only posix calls these. */

int initgroups(const char *user, gid_t group)
{
    (void)user, (void)group;
    errno = ENOSYS;
    return -1;
}

int getgrouplist(const char *user, gid_t group, gid_t *groups, int *count)
{
    (void)user, (void)group, (void)groups;
    *count = 0;
    return -1;
}

char *getlogin(void)
{
    errno = ENOSYS;
    return NULL;
}

/* Extension modules from files, in the place of dynload_shlib.o of libpython.a (Python/importdl.h). */

typedef void (*dl_funcptr)(void);
const char *_PyImport_DynLoadFiletab[] = {NULL};
dl_funcptr _PyImport_FindSharedFuncptr(const char *prefix, const char *name, const char *path, FILE *file);

dl_funcptr _PyImport_FindSharedFuncptr(const char *prefix, const char *name, const char *path, FILE *file)
{
    (void)prefix, (void)name, (void)path, (void)file;
    PyErr_SetString(PyExc_ImportError, "this program loads no extension modules");
    return NULL;
}
