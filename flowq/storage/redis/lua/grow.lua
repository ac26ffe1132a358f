#!lua
-- grow: reserve the indexes of a fragment, and store a page of it that nobody sees yet.
-- Keys    1 sessions (zset)
-- Args    1 now  2 session  3 id  4 delivery (4 bytes)  5 rows of the fragment
--         6 the first of these rows, or -1 to reserve alone  7 records  then for each row: index, row
-- Gives   the index of the fragment's first row, or -1 if the session does not hold the delivery
-- Cost    O(rows of the page)
-- Repeat  safe: a delivery is given what it has reserved
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _phases
-- @include _extras
-- @include _along
-- @include _limits
-- @include _parks
-- @include _back
local session, id, delivery, total = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local first = tonumber(ARGV[6])
local lease = call('HGET', P .. 'w:' .. session, id)
if not lease or sub(lease, 1, 4) ~= delivery then return -1 end
local run = sub(id, 1, 16)
local n, c = P .. 'n:' .. run, P .. 'c:' .. run
local base = 1
if #id == 16 then
  -- a run that is to be: hidden as one that is uploaded is
  if first < 0 then return base end
  if call('HGET', n, 'u') ~= delivery then call('UNLINK', n, c) end
  call('HSET', n, 'u', delivery)
else
  local field = 'x' .. sub(id, 17)
  local had = call('HGET', n, field)
  if had and unpack_('>I4', had, 9) == total then
    base = unpack_('>I4', had, 5)
  else
    base = math.floor(call('STRLEN', c) / 32)
  end
  if first < 0 then
    call('HSET', n, field, delivery .. pack('>I4I4', base, total))
    if total > 0 and (not had or unpack_('>I4', had, 5) ~= base) then
      call('HSET', n, 'X', (call('HGET', n, 'X') or '') .. pack('>I4I4', base, total))
      call('SETRANGE', c, (base + total) * 32 - 1, '\0')
    end
    return base
  end
  if not had or sub(had, 1, 4) ~= delivery then return -1 end
end
for k = 8, #ARGV, MANY do call('HSET', n, unpack(ARGV, k, math.min(k + MANY - 1, #ARGV))) end
call('SETRANGE', c, (base + first) * 32, ARGV[7])
if #id == 16 then
  call('PEXPIRE', n, 3600000)
  call('PEXPIRE', c, 3600000)
end
return base
