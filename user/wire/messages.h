// SPDX-License-Identifier: Apache-2.0
// Messages: the structs of message_structs.h as JSON text and back, and the answers that
// carry them. Unknown fields are ignored, missing ones and values out of range are refused.
// Promise: decoding never throws, never believes a number it did not check, and says which field
// is wrong. What encode() writes of a valid message, decode accepts.
// Callers: any thread. Failure: decoding fails with kind corrupt.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "user/wire/http_client.h"
#include "user/wire/http_server.h"
#include "user/wire/message_structs.h"

namespace herald::wire {

std::string encode(const SessionRequest& message);
std::string encode(const SessionGrant& message);
std::string encode(const SegmentAck& message);
std::string encode(const ErrorBody& message);
std::string encode(const ServerStatus& message);
std::string encode(const std::vector<DiskInfo>& disks);        // {"disks": [...]}
std::string encode(const std::vector<PointInfo>& points);      // {"points": [...]}
std::string encode(const std::vector<SegmentInfo>& segments);  // {"segments": [...]}

Result<SessionRequest> decode_session_request(std::string_view text);
Result<SessionGrant> decode_session_grant(std::string_view text);
Result<SegmentAck> decode_segment_ack(std::string_view text);
Result<ErrorBody> decode_error_body(std::string_view text);
Result<ServerStatus> decode_server_status(std::string_view text);
Result<std::vector<DiskInfo>> decode_disks(std::string_view text);
Result<std::vector<PointInfo>> decode_points(std::string_view text);
Result<std::vector<SegmentInfo>> decode_segments(std::string_view text);

// A whole decimal number and nothing else: of a header, a query or a path.
Result<uint64_t> parse_number(std::string_view text);

// Server side: an answer with a JSON body, and one with an ErrorBody (and Retry-After when
// retry_after_s is not 0).
ServerResponse json_response(unsigned status, const std::string& json);
ServerResponse error_response(unsigned status, std::string_view code, std::string_view message,
                              uint64_t retry_after_s = 0);

// Client side: the ErrorBody of an answer that is not 2xx. An answer without a readable one gets
// a code from its status, so that callers look at one thing only.
ErrorBody error_of(const HttpResponse& response);
// The same as an Error: fenced and diverged are resync; busy, ahead and store_full are retry;
// corrupt is corrupt; 5xx are retry; the rest need an operator.
Error to_error(const HttpResponse& response, std::string_view doing);

}  // namespace herald::wire
