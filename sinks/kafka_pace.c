/* kafka_pace.c - see kafka_pace.h. */
#include "sinks/kafka_pace.h"

#include <assert.h>

#define SMOOTH 4

void kafka_pace_begin(struct kafka_pace *pace, size_t request, uint32_t linger_ms)
{
    *pace = (struct kafka_pace){ .request = request, .border_us = (int64_t)linger_ms * 2000 };
}

static bool pace_is_near(const struct kafka_pace *pace)
{
    return pace->latency_us < pace->border_us;
}

void kafka_pace_turn(struct kafka_pace *pace)
{
    pace->open = pace->outstanding == 0;
}

bool kafka_pace_allows(const struct kafka_pace *pace)
{
    /* An eighth less, for what a record costs beside value and key: what does not fit stays behind and grows old. */
    size_t most = (pace->request - pace->request / 8) * (pace->partitions > 0 ? pace->partitions : 1);

    return pace_is_near(pace) ? pace->outstanding < 2 * most : pace->open && pace->outstanding < most;
}

void kafka_pace_produced(struct kafka_pace *pace, size_t size)
{
    pace->outstanding += size;
}

void kafka_pace_reported(struct kafka_pace *pace, size_t size, int32_t partition, int64_t latency_us)
{
    assert(size <= pace->outstanding);
    pace->outstanding -= size;
    if (latency_us >= 0)
        pace->latency_us += (latency_us - pace->latency_us) / SMOOTH;
    if (partition >= 0) {
        uint64_t *word = &pace->seen[(uint32_t)partition % KAFKA_PACE_PARTITIONS / 64];
        uint64_t bit = UINT64_C(1) << ((uint32_t)partition % 64);

        pace->partitions += (*word & bit) == 0;
        *word |= bit;
    }
}
