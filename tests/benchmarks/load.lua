-- Creates users, with another e-mail each time, or reads a path, and counts the answers
-- by status. Arguments after "--": a prefix of the e-mails, a token or "-", and the path.
local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

function init(args)
   prefix, token, path = args[1], args[2], args[3]
   sent = 0
   answers = {}
   headers = { ["Content-Type"] = "application/json" }
   if token ~= "-" then
      headers["Authorization"] = "Bearer " .. token
   end
end

function request()
   if path then
      return wrk.format("GET", path, headers)
   end
   sent = sent + 1
   local body = string.format(
      '{"nombre": "John", "apellido": "Doe", "email": "%s.%d.%d@example.com", ' ..
      '"fecha_nacimiento": "1990-01-01T00:00:00", ' ..
      '"url_foto_perfil": "http://example.com/photo.jpg", "biografia": "A test user"}',
      prefix, number, sent)
   return wrk.format("POST", nil, headers, body)
end

function response(status)
   local name = tostring(status)
   answers[name] = (answers[name] or 0) + 1
end

function done(summary, latency, requests)
   local total = {}
   for _, thread in ipairs(threads) do
      for name, count in pairs(thread:get("answers")) do
         total[name] = (total[name] or 0) + count
      end
   end
   for name, count in pairs(total) do
      print("answer", name, count)
   end
   local errors = summary.errors
   print("seconds", "all", summary.duration / 1e6)
   print("errors", "sockets", errors.connect + errors.read + errors.write)
   print("errors", "timeouts", errors.timeout)
   for _, p in ipairs({ 50, 90, 99 }) do
      print("latency", "p" .. p, latency:percentile(p) / 1e3)
   end
   print("latency", "max", latency.max / 1e3)
end
