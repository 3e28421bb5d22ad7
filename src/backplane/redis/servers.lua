-- Keeps instances from spreading rooms over different lists of servers that have one in common: a room would be
-- on two servers, and its users would not hear each other. Each instance notes its list on each server.
--
-- KEYS[1] string: the list that instances use
-- ARGV    this instance's list, milliseconds to live
-- returns the other instances' list, if it is another one

local others = redis.call('GET', KEYS[1])
if others and others ~= ARGV[1] then
  return others
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
