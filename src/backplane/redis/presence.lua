-- Who is in one room, over all instances. Everything that changes it is here, in one atomic step
-- with its announcement, so that a user is announced once however many instances act at a time.
--
-- KEYS[1] sorted set: user -> when the last of their instances lets them expire (ms, Redis's clock)
-- KEYS[2] hash: user -> "instance:expiry" of each instance that they are connected to, by spaces
-- KEYS[3] sorted set: instance -> when it lets its users expire, so that it finds out when they are
--         forgotten
-- KEYS[4] string: the revision, "BEGAN-NUMBER": when counting began (us) and the number of the last
--         announcement. So a list of members and an announcement can be compared. It stays for a day,
--         so that a clock that is set back repeats none.
-- ARGV    operation, channel, instance, milliseconds to live (sweep: until when, by Redis's clock),
--         users...
--
--   arrive   the users are connected to the instance, from now on or still (a renewal)
--   depart   they no longer are
--   retire   they no longer are, but are given a while to come back elsewhere
--   sweep    those whose instances all failed to renew them are gone; returns whether anything of
--            this instance is still known (0 after a FLUSHALL), and Redis's clock. A sweep that Redis
--            runs late finds nobody gone: Redis was frozen, and nobody could be renewed.
--   roll     returns the revision and the users that were announced and have not left, on lines of
--            their own: one string is cheaper than a thousand
--   members  the same without those that nobody renewed in time, who are about to leave

local users, holders, instances, revision = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, channel, instance, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- If the revision is lost, counting begins anew, at the clock: later than before.
local began, number = string.match(redis.call('GET', revision) or '', '^(%d+)-(%d+)$')
began = began or string.format('%d', time[1] * 1000000 + time[2])
number = tonumber(number or 0)

local function announce(kind, user)
  number = number + 1
  redis.call('SET', revision, string.format('%s-%d', began, number), 'PX', 86400000)
  redis.call('PUBLISH', channel, string.format('%s\n%s-%d\n%s', kind, began, number, user))
end

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
      announce('l', user)
    end
  else
    redis.call('HSET', holders, user, table.concat(parts, ' '))
    if redis.call('ZADD', users, string.format('%d', latest), user) == 1 then
      announce('j', user)
    end
  end
end

if operation == 'members' or operation == 'roll' then
  local from = operation == 'roll' and '-inf' or '(' .. string.format('%d', now)
  local list = redis.call('ZRANGEBYSCORE', users, from, '+inf')
  table.insert(list, 1, string.format('%s-%d', began, number))
  return table.concat(list, '\n')
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

-- Nobody renews a room that nobody is in: without this, its keys would stay for ever. They stay for an
-- hour, so that a Redis that takes no writes for a while forgets nobody who is here.
if operation == 'arrive' then
  redis.call('ZADD', instances, string.format('%d', now + ttl), instance)
  for index = 1, 3 do
    redis.call('PEXPIRE', KEYS[index], ttl + 3600000)
  end
end
