#!lua
-- watch: note who waits for a run to move.
-- Keys    1 sessions (zset)
-- Args    1 now  2 token of the waiting thread (16 bytes)  3 run  4 number of changes that was seen
-- Gives   1 if it has moved or is not known, else 0
-- Cost    O(1)
-- Repeat  safe
-- @include _base
-- @include _ended
local token, run, w = ARGV[2], ARGV[3], P .. 'wait'
local got = call('HMGET', P .. 'n:' .. run, 'V', 'u')
if got[1] ~= ARGV[4] or got[2] then return 1 end
call('DEL', P .. 'a:' .. token)
local tokens = call('HGET', w, run .. 'm') or ''
for at = 1, #tokens, 16 do
  if sub(tokens, at, at + 15) == token then return 0 end
end
call('HSET', w, run .. 'm', tokens .. token)
return 0
