-- Who is in one room, over all instances. Everything that changes it is here, in one atomic step
-- with its announcement, so that a user is announced once however many instances act at a time.
--
-- KEYS[1] sorted set: user -> when the last of their instances lets them expire (ms, Redis's clock)
-- KEYS[2] hash: user -> "instance:expiry" of each instance that they are connected to, by spaces
-- KEYS[3] sorted set: instance -> when it lets its users expire, so that it finds out when they are
--         forgotten
-- ARGV    operation, channel, instance, milliseconds to live (sweep: until when, by Redis's clock),
--         users...
--
--   arrive   the users are connected to the instance, from now on or still (a renewal)
--   depart   they no longer are
--   retire   they no longer are, but are given a while to come back elsewhere
--   sweep    those whose instances all failed to renew them are gone; returns whether anything of
--            this instance is still known (0 after a FLUSHALL), and Redis's clock. A sweep that Redis
--            runs late finds nobody gone: Redis was frozen, and nobody could be renewed.
--   members  returns who is present, on lines of their own: one string is cheaper than a thousand

local users, holders, instances = KEYS[1], KEYS[2], KEYS[3]
local operation, channel, instance, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read(user)
  local held = {}
  for name, expiry in string.gmatch(redis.call('HGET', holders, user) or '', '(%x+):(%d+)') do
    if tonumber(expiry) > now then
      held[name] = tonumber(expiry)
    end
  end
  return held
end

local function write(user, held)
  local latest, parts = 0, {}
  for name, expiry in pairs(held) do
    latest = math.max(latest, expiry)
    parts[#parts + 1] = string.format('%s:%d', name, expiry)
  end
  if latest == 0 then
    redis.call('HDEL', holders, user)
    if redis.call('ZREM', users, user) == 1 then
      redis.call('PUBLISH', channel, 'l\n' .. user)
    end
  else
    -- One who had expired and was not swept yet is announced as well: whoever entered meanwhile was
    -- shown the room without them. To all others it is no news.
    local before = redis.call('ZSCORE', users, user)
    redis.call('HSET', holders, user, table.concat(parts, ' '))
    redis.call('ZADD', users, string.format('%d', latest), user)
    if not before or tonumber(before) <= now then
      redis.call('PUBLISH', channel, 'j\n' .. user)
    end
  end
end

if operation == 'members' then
  return table.concat(redis.call('ZRANGEBYSCORE', users, '(' .. string.format('%d', now), '+inf'), '\n')
end

if operation == 'sweep' then
  if now <= ttl then
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', users, '-inf', string.format('%d', now), 'LIMIT', 0, 500)) do
      write(user, read(user))
    end
    redis.call('ZREMRANGEBYSCORE', instances, '-inf', string.format('%d', now))
  end
  return {redis.call('ZSCORE', instances, instance) and 1 or 0, now}
end

for index = 5, #ARGV do
  local user = ARGV[index]
  local held = read(user)
  if operation == 'arrive' then
    held[instance] = now + ttl
  elseif operation == 'depart' then
    held[instance] = nil
  elseif held[instance] then
    held[instance] = now + ttl
  end
  write(user, held)
end

-- Nobody renews a room that nobody is in: without this, its keys would stay for ever.
if operation == 'arrive' then
  redis.call('ZADD', instances, string.format('%d', now + ttl), instance)
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, ttl * 4)
  end
end
