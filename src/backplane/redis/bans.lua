-- Bans, or lifts a ban, and tells every instance.
--
-- KEYS[1] hash: "user NAME", "room NAME", "message ID ROOM" or "past ID ROOM" -> "UNTIL REASON", the end in ms since 1970
-- ARGV    the channel and the payload that tell it, what is banned, and the ban, or nothing to lift it

local bans, banned, ban = KEYS[1], ARGV[3], ARGV[4]
local time = redis.call('TIME')

if ban == '' then
  redis.call('HDEL', bans, banned)
else
  redis.call('HSET', bans, banned, ban)
end

-- Those that are over go, an hour late: the clocks of instances may differ from this one.
local over, last = time[1] * 1000 - 3600000, 0
local all = redis.call('HGETALL', bans)
for index = 1, #all, 2 do
  local ends = tonumber(string.match(all[index + 1], '^%d+') or 0)
  if ends < over then
    redis.call('HDEL', bans, all[index])
  end
  last = math.max(last, ends)
end
redis.call('PEXPIREAT', bans, string.format('%d', last + 3600000))
redis.call('PUBLISH', ARGV[1], ARGV[2])
