/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

struct buffer buffer_new(size_t limit)
{
	return (struct buffer){ .limit = limit };
}

bool buffer_reserve(struct buffer *b, size_t more)
{
	if (more > b->limit - b->length)
		return false;
	size_t need = b->length + more + 1;
	if (need <= b->capacity)
		return true;
	size_t capacity = b->capacity ? b->capacity : 4096;
	while (capacity < need)
		capacity *= 2;
	char *data = realloc(b->data, capacity);
	if (!data)
		return false;
	b->data = data;
	b->capacity = capacity;
	b->data[b->length] = '\0';
	return true;
}

bool buffer_append(struct buffer *b, const void *bytes, size_t count)
{
	if (!buffer_reserve(b, count))
		return false;
	memcpy(b->data + b->length, bytes, count);
	b->length += count;
	b->data[b->length] = '\0';
	return true;
}

bool buffer_append_text(struct buffer *b, const char *text)
{
	return buffer_append(b, text, strlen(text));
}
