#!lua
-- open: register a session.
-- Keys    1 sessions (zset)
-- Args    1 now  2 session  3 lease, ms  4 what it says of itself (over 64 bytes)
-- Gives   1
-- Cost    O(log n)
-- Repeat  safe
-- @include _base
call('HSET', P .. 'w:' .. ARGV[2], 'i', ARGV[4])
call('ZADD', P .. 'L', now + tonumber(ARGV[3]), ARGV[2])
return 1
