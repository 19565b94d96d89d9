/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <stdio.h>
#include <string.h>

/* The end of the string that begins after the quote at `at`, or NULL. */
static const char *string_end(const char *at, const char *end)
{
	for (; at < end; at++) {
		if (*at == '\\')
			at++;
		else if (*at == '"')
			return at;
	}
	return NULL;
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static bool copy_version(const char *at, const char *end, char version[VERSION_TEXT_MAX])
{
	size_t length = (size_t)(end - at);
	if (length == 0 || length >= VERSION_TEXT_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!strchr("0123456789.-+abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", at[i]))
			return false;
	}
	memcpy(version, at, length);
	version[length] = '\0';
	return true;
}

bool json_cni_version(const struct buffer *text, char version[VERSION_TEXT_MAX])
{
	static const char key[] = "cniVersion";
	const char *at = text->data, *end = text->data + text->length;
	int depth = 0;

	for (; at && at < end; at++) {
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		if (*at != '"')
			continue;
		const char *start = at + 1;
		at = string_end(start, end);
		if (!at)
			return false;
		if (depth != 1 || (size_t)(at - start) != sizeof(key) - 1 || memcmp(start, key, sizeof(key) - 1) != 0)
			continue;
		const char *colon = skip_space(at + 1, end);
		if (colon >= end || *colon != ':')
			continue; /* a value that happens to read like the key */
		const char *value = skip_space(colon + 1, end);
		if (value >= end || *value != '"')
			return false;
		const char *value_end = string_end(value + 1, end);
		return value_end && copy_version(value + 1, value_end, version);
	}
	return false;
}

bool json_append_string(struct buffer *b, const char *text)
{
	if (!buffer_append_text(b, "\""))
		return false;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		char escaped[8];
		if (c == '"' || c == '\\')
			snprintf(escaped, sizeof(escaped), "\\%c", c);
		else if (c < 0x20)
			snprintf(escaped, sizeof(escaped), "\\u%04x", c);
		else
			snprintf(escaped, sizeof(escaped), "%c", c);
		if (!buffer_append_text(b, escaped))
			return false;
	}
	return buffer_append_text(b, "\"");
}
