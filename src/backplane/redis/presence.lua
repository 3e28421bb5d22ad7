-- Who is in one room, over all instances. Everything that changes it is here, in one atomic step
-- with its announcement, so that a user is announced once however many instances act at a time.
--
-- An instance is named INSTANCE.TERM here. It begins a new term when a departure may have been lost:
-- those that are still there arrive in the new term, and the others expire with the old one.
--
-- KEYS[1] hash: user -> the instances that they are connected to, by spaces
-- KEYS[2] sorted set: instance -> when it lets its users expire (ms, Redis's clock)
-- KEYS[3] string: the revision, "BEGAN-NUMBER": when counting began (us) and the number of the last
--         announcement. So a list of members and an announcement can be compared. It stays for a day,
--         so that a clock that is set back repeats none.
-- ARGV    operation, how to publish (in a cluster SPUBLISH), channel, instance, milliseconds to live
--         (sweep: until when, by Redis's clock), users...
--
--   arrive   the users are connected to the instance, which lives on
--   anew     the same, after an outage. After a failover the revision may be an older one: it leaps ahead of
--            all that the old master gave away.
--   depart   they no longer are
--   renew    the instance lives on, and with it all of its users; returns whether it is known
--            (0 after a FLUSHALL, or when it was taken for gone)
--   retire   the instance ends: its users are given a while to come back elsewhere
--   sweep    users whose instances all failed to renew themselves are gone; returns whether this
--            instance is still known, Redis's clock, and when the next instance lets its users expire
--            (0 if there is none). A sweep that Redis runs late finds nobody gone: Redis was frozen, and
--            nobody could be renewed.
--   roll     returns the revision and the users that were announced and have not left, on lines of
--            their own: one string is cheaper than a thousand
--   members  the same without the users of instances that were not renewed in time
--   count    the number of these

local users, instances, revision = KEYS[1], KEYS[2], KEYS[3]
local operation, publish, channel, instance, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A sweep takes at most so many users out: it keeps Redis from everything else.
local MOST_SWEPT = 250

-- If the revision is lost, counting begins anew, at the clock: later than before.
local began, number = string.match(redis.call('GET', revision) or '', '^(%d+)-(%d+)$')
began = began or string.format('%d', time[1] * 1000000 + time[2])
number = tonumber(number or 0)

local function store_revision()
  redis.call('SET', revision, string.format('%s-%d', began, number), 'PX', 86400000)
end

local function announce(kind, user)
  number = number + 1
  store_revision()
  redis.call(publish, channel, string.format('%s\n%s-%d\n%s', kind, began, number, user))
end

-- Notes whether a user is connected to an instance, and announces the first and the last. An arrival or
-- a departure ends those of the instance's earlier terms, too. One that comes late, by a connection that was lost, changes
-- nothing in a later term.
local function note(user, at, is_connected)
  local instance_at, term_at = string.match(at, '^(%x+)%.?(%d*)')
  local held = {}
  for other in string.gmatch(redis.call('HGET', users, user) or '', '%S+') do
    local instance_of, term_of = string.match(other, '^(%x+)%.?(%d*)')
    if instance_of ~= instance_at then
      held[#held + 1] = other
    elseif (tonumber(term_of) or 0) > (tonumber(term_at) or 0) then
      return
    end
  end
  if is_connected then
    held[#held + 1] = at
  end
  if #held > 0 then
    if redis.call('HSET', users, user, table.concat(held, ' ')) == 1 then
      announce('j', user)
    end
  elseif redis.call('HDEL', users, user) == 1 then
    announce('l', user)
  end
end

-- The instances that were not renewed in time.
local function expired()
  return redis.call('ZRANGEBYSCORE', instances, '-inf', string.format('%d', now))
end

-- Nobody renews a room that nobody is in: without this, its keys would stay for ever. They stay for an
-- hour, so that a Redis that takes no writes for a while forgets nobody who is here.
local function live_on()
  redis.call('ZADD', instances, string.format('%d', now + ttl), instance)
  redis.call('PEXPIRE', users, ttl + 3600000)
  redis.call('PEXPIRE', instances, ttl + 3600000)
end

if operation == 'anew' then
  number = number + 1000
  store_revision()
end
if operation == 'arrive' or operation == 'anew' or operation == 'depart' then
  for index = 6, #ARGV do
    note(ARGV[index], instance, operation ~= 'depart')
  end
  if operation ~= 'depart' then
    live_on()
  end
  return
end

if operation == 'roll' and number == 0 then
  -- Changes count on from this list, or a member that was shown it would pass for one that has another list. A Redis
  -- that takes no writes does not keep it.
  redis.pcall('SET', revision, began .. '-0', 'PX', 86400000)
end
if operation == 'roll' or operation == 'members' or operation == 'count' then
  local is_expired = {}
  for _, name in ipairs(operation ~= 'roll' and expired() or {}) do
    is_expired[name] = true
  end
  local list = {string.format('%s-%d', began, number)}
  if not next(is_expired) then
    if operation == 'count' then
      return redis.call('HLEN', users)
    end
    list[2] = table.concat(redis.call('HKEYS', users), '\n')
    return table.concat(list, '\n')
  end
  local all = redis.call('HGETALL', users)
  for index = 1, #all, 2 do
    for name in string.gmatch(all[index + 1], '%S+') do
      if not is_expired[name] then
        list[#list + 1] = all[index]
        break
      end
    end
  end
  return operation == 'count' and #list - 1 or table.concat(list, '\n')
end

local is_known = redis.call('ZSCORE', instances, instance) and 1 or 0
if operation == 'sweep' then
  local left = MOST_SWEPT
  for _, gone in ipairs(now <= ttl and expired() or {}) do
    local all = redis.call('HGETALL', users)
    for index = 1, #all, 2 do
      local held = ' ' .. all[index + 1] .. ' '
      if left > 0 and string.find(held, ' ' .. gone .. ' ', 1, true) then
        note(all[index], gone, false)
        left = left - 1
      end
    end
    if left > 0 then
      redis.call('ZREM', instances, gone)
    end
  end
  local next_one = redis.call('ZRANGE', instances, 0, 0, 'WITHSCORES')
  return {is_known, now, tonumber(next_one[2] or 0)}
end

-- renew and retire
if is_known == 1 then
  live_on()
end
return is_known
