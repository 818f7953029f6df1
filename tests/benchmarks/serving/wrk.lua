-- What wrk asks, and how it reports. Arguments: method, path, body, ETag, first seed, how many seeds.
-- `%d` in path and body stands for the seed; each request has the next one, from the first again at the end.
local method, path, body, first, seeds, seed, headers

function init(arguments)
   method, path, body = arguments[1], arguments[2], arguments[3]
   headers = { ["Content-Type"] = "application/json" }
   if arguments[4] ~= "" then
      headers["If-None-Match"] = arguments[4]
   end
   first, seeds, seed = tonumber(arguments[5]), tonumber(arguments[6]), 0
end

function request()
   local now = first + seed % seeds
   seed = seed + 1
   return wrk.format(method, string.format(path, now), headers, string.format(body, now))
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "errors": %d, "seconds": %.6f, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f}\n',
      summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3
   ))
end
