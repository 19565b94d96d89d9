/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLUICE_BUFFER_H
#define SLUICE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that grow up to a limit. `data` always ends in a NUL that `length` does not count. */
struct buffer {
	char *data;
	size_t length;
	size_t capacity;
	size_t limit;
};

/* A buffer that holds at most `limit` bytes. */
struct buffer buffer_new(size_t limit);

/* Makes room for `more` bytes behind `length`; false beyond the limit or without memory. */
bool buffer_reserve(struct buffer *b, size_t more);
bool buffer_append(struct buffer *b, const void *bytes, size_t count);
bool buffer_append_text(struct buffer *b, const char *text);

#endif
