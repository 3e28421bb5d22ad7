-- Notes rooms in the index of all rooms. Those that are the quietest fall out beyond its length.
--
-- KEYS[1] sorted set: room -> the time of its newest message (ms), 0 if none is known
-- ARGV    rooms to keep, the index's time to live (ms), and of each room: time, name

redis.call('ZADD', KEYS[1], 'GT', unpack(ARGV, 3))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
