-- Ready lists. Of each queue and priority there are up to three: what came back or was queued by a
-- settlement (level 2p+1), what was enqueued (2p), and either with an "a" before it: messages that
-- lost a worker, each for a session that holds nothing. p:<queue> orders the lists that may have
-- something. An entry of an "a" list begins with its place (4 bytes): how many entries of the list
-- without "a" go before it, counted from the first that was popped since there is an "a" list (field
-- n<level> of g:<queue>; one that is put back in front counts as popped once less), so that both
-- together are one line. A ghost is an entry whose message has left the list by another way
-- (g:<queue>).
local lines, line_of = {}, {}
-- Queues of which this script says itself at its end whether it leaves a hint.
local served = {}

-- What is `first` goes before all that is in its list.
local function push(id, queue, priority, front, alone, first)
  local level = priority * 2 + (front and 1 or 0)
  local of_queue = line_of[queue]
  if not of_queue then
    of_queue = {}
    line_of[queue] = of_queue
  end
  local place = level + (alone and 0.5 or 0) + (first and 0.25 or 0)
  local line = of_queue[place]
  if not line then
    line = {}
    of_queue[place] = line
    lines[#lines + 1] = {line, queue, alone and 'a' .. level or tostring(level), level, first}
  end
  line[#line + 1] = id
end

-- Nodes queued together go by the order of their ids: the oldest run first, in it by index.
local function in_order(ids)
  local sorted = true
  for k = 1, #ids do
    if #ids[k] == 16 then return end
    if k > 1 and ids[k] < ids[k - 1] then sorted = false end
  end
  if not sorted then table.sort(ids) end
end

-- How many entries of a list were popped since there is an "a" list of its level.
local function popped_of(queue, level)
  return tonumber(call('HGET', P .. 'g:' .. queue, 'n' .. level) or 0)
end

-- Puts ids in front of a list, in their order; gives how many entries it has.
local function put_first(queue, member, level, ids)
  if byte(member) ~= 97 and call('ZSCORE', P .. 'p:' .. queue, 'a' .. level) then
    call('HINCRBY', P .. 'g:' .. queue, 'n' .. level, -#ids)
  end
  local back = {}
  for k = #ids, 1, -1 do back[#back + 1] = ids[k] end
  return many('LPUSH', P .. 'r:' .. queue .. ':' .. member, back)
end

-- Writes what push() gathered, and leaves a hint for who waits on those queues. `as_given` keeps the
-- order in which it was pushed.
local function flush_lines(as_given)
  for i = 1, #lines do
    local ids, queue, member, level, first = unpack(lines[i])
    local size
    if byte(member) == 97 then
      local place = popped_of(queue, level)
      if not first then place = place + call('LLEN', P .. 'r:' .. queue .. ':' .. level) end
      for k = 1, #ids do ids[k] = pack('>i4', place) .. ids[k] end
    elseif not as_given and not first then
      in_order(ids)
    end
    if first then size = put_first(queue, member, level, ids)
    else size = many('RPUSH', P .. 'r:' .. queue .. ':' .. member, ids) end
    if size == #ids then call('ZADD', P .. 'p:' .. queue, level, member) end
    if served[queue] ~= nil then
      served[queue] = true
    else
      call('ZADD', P .. 'k:' .. queue, 0, 1)
    end
  end
  if #lines > 0 then lines, line_of = {}, {} end
end

-- A queued message leaves its list by another way than being popped. The lists of those that lost a
-- worker are short, and nothing may wait there that is not there.
local function ghost(id, queue, priority, losses)
  if losses > 0 then
    local key = P .. 'r:' .. queue .. ':a' .. priority * 2 + 1
    for _, entry in ipairs(call('LRANGE', key, 0, -1)) do
      if sub(entry, 5) == id then return call('LREM', key, 1, entry) end
    end
  end
  call('HINCRBY', P .. 'g:' .. queue, id, 1)
  call('HINCRBY', P .. 'g:' .. queue, '', 1)
end

-- How many messages are ready in a queue.
local function ready_in(queue)
  local n = 0
  local p = P .. 'p:' .. queue
  for _, member in ipairs(call('ZRANGE', p, 0, -1)) do
    n = n + call('LLEN', P .. 'r:' .. queue .. ':' .. member)
  end
  return n - (tonumber(call('HGET', P .. 'g:' .. queue, '') or 0))
end
