/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLUICE_JSON_H
#define SLUICE_JSON_H

#include "buffer.h"

/* Enough for any version number; longer ones are taken for damaged. */
#define VERSION_TEXT_MAX 32

/*
 * Copies the value of the outermost object's "cniVersion" into `version`; false if there is none that looks like a
 * version. Reads no more JSON than that needs: the agent judges the rest.
 */
bool json_cni_version(const struct buffer *text, char version[VERSION_TEXT_MAX]);

/* Appends `text` as a JSON string with its quotes. Bytes from 0x80 up are passed through. */
bool json_append_string(struct buffer *b, const char *text);

#endif
