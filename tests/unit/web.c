/* Who may look: addresses and the names in Host headers. What is served is tests/scenario/test_status.py's. */
#include "daemon/status/web.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        bool good, loopback;
    } rows[] = {
        { "127.0.0.1:9101", true, true },
        { "127.9.9.9:1", true, true },
        { "[::1]:9101", true, true },
        { "0.0.0.0:9101", true, false },
        { "[::]:9101", true, false },
        { "10.1.2.3:65535", true, false },
        { "[::ffff:127.0.0.1]:1", true, false },
        { "127.0.0.1", false, false },
        { "127.0.0.1:", false, false },
        { "127.0.0.1:65536", false, false },
        { "127.0.0.1:-1", false, false },
        { "127.0.0.1:1x", false, false },
        { "::1:9101", false, false },
        { "[::1:9101", false, false },
        { "[]:9101", false, false },
        { ":9101", false, false },
        { "localhost:9101", false, false },
        { "1111111111111111111111111111111111111111111111111111111111111111111111:1", false, false },
    };
    struct sockaddr_storage address;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct pen_error err = { 0 };
        int r = web_address_read(rows[i].text, &address, &err);

        if ((r == 0) != rows[i].good || (r == 0 && web_address_is_loopback(&address) != rows[i].loopback))
            fail_msg("%s", rows[i].text);
    }
}

static void test_hosts(void **state)
{
    static const char *const named[] = { "mon.example.net" };
    const struct pen_list names = { named, 1 };
    static const struct {
        const char *host;
        bool fits;
    } rows[] = {
        { "127.0.0.1:9101", true },
        { "localhost", true },
        { "LocalHost:80", true },
        { "[::1]:9101", true },
        { "10.1.2.3:9101", true },
        { "mon.example.net:9101", true },
        { "MON.EXAMPLE.NET", true },
        { "", false },
        { "evil.example.net", false },
        { "localhost.evil.example.net", false },
        { "127.0.0.1.evil.example.net:9101", false },
        { "mon.example.net.evil.org", false },
        { "evil.org:127.0.0.1", false },
        { "10.1.2.33:9101", false },
        { "10.1.2", false },
        { "[::1", false },
        { "[", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (web_host_fits(rows[i].host, "10.1.2.3:9101", &names) != rows[i].fits)
            fail_msg("%s", rows[i].host);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_addresses), cmocka_unit_test(test_hosts) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
