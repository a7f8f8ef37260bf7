// Arrays of several types in one block of memory, to be copied to a device at once.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace seqtrain {

// Items behind those there are; where they begin.
template <class T, class Items>
inline int64_t put(std::vector<T>& array, const Items& items) {
  const auto place = static_cast<int64_t>(array.size());
  for (const auto item : items) array.push_back(static_cast<T>(item));
  return place;
}

// An array behind what there is, aligned; where it begins.
template <class T>
inline int64_t append(std::vector<char>& out, const std::vector<T>& items) {
  const std::size_t place = (out.size() + 15) / 16 * 16;
  out.resize(place + items.size() * sizeof(T));
  if (!items.empty()) std::memcpy(out.data() + place, items.data(), items.size() * sizeof(T));
  return static_cast<int64_t>(place);
}

}  // namespace seqtrain
