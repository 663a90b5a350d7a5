#include "lora/nearest.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "core/base/status_macros.h"

namespace coterie {

absl::Status NearestInteractions::Refresh() {
  MutexLock lock(mutex_);
  return RefreshLocked();
}

absl::Status NearestInteractions::RefreshLocked() {
  COTERIE_ASSIGN_OR_RETURN(const int64_t change, log_.LastChange());
  if (change == change_) return absl::OkStatus();
  InteractionFilter newest;
  newest.with_feedback = true;
  newest.newest_first = true;
  newest.limit = kMaxInteractions;
  COTERIE_ASSIGN_OR_RETURN(const auto listed, log_.ListChanges(newest));
  std::map<std::string, int64_t> wanted(listed.begin(), listed.end());
  for (auto it = known_.begin(); it != known_.end();) {
    const auto still = wanted.find(it->first);
    if (still != wanted.end() && still->second == it->second.change) {
      ++it;
      continue;
    }
    Remove(it->second);
    it = known_.erase(it);
  }
  for (const auto& [id, its_change] : listed) {
    if (known_.count(id) > 0) continue;
    const absl::Status status = Add(id, its_change);
    if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) break;  // No room.
    // One that was forgotten since, or is damaged, keeps nobody from finding the others.
  }
  for (auto& [place, texts] : texts_) texts.Settle();
  change_ = change;
  return absl::OkStatus();
}

absl::Status NearestInteractions::Add(const std::string& id, int64_t change) {
  COTERIE_ASSIGN_OR_RETURN(const Interaction one, log_.Get(id));
  Known known;
  known.change = change;
  const Verdict verdict = one.feedback.verdict;
  if (verdict == Verdict::kAccepted || verdict == Verdict::kEdited) {
    const std::string& asked = AskedText(one.messages);
    COTERIE_RETURN_IF_ERROR(Charge(NearestTexts::EstimateBytes(asked.size())));
    known.key = one.change;  // Unique in the log, and larger for later feedback.
    known.texts = &texts_[{one.expert, SystemPromptOf(one.messages)}];
    known.texts->Add(known.key, asked);
    ids_[known.key] = id;
  }
  known_[id] = known;
  return absl::OkStatus();
}

void NearestInteractions::Remove(const Known& known) {
  if (known.texts == nullptr) return;
  ids_.erase(known.key);
  known.texts->Remove(known.key);
}

// In steps, for asking the budget each time would take longer than adding.
absl::Status NearestInteractions::Charge(int64_t more_bytes) {
  constexpr int64_t kStepBytes = 1 << 20;
  constexpr int64_t kKnownBytes = 256;  // Of the maps, for one interaction.
  int64_t bytes = more_bytes + static_cast<int64_t>(known_.size() + 1) * kKnownBytes;
  for (const auto& [place, texts] : texts_) bytes += texts.memory_bytes();
  if (bytes <= bytes_.bytes()) return absl::OkStatus();
  std::vector<Reservation> given;
  if (bytes_.bytes() > 0) given.push_back(std::move(bytes_));
  auto charged = budget_.Exchange(given, {{Purpose::kRouter, bytes + kStepBytes}});
  if (charged.ok()) {
    bytes_ = std::move(charged->front());
  } else if (!given.empty()) {
    bytes_ = std::move(given.front());
  }
  return charged.status();
}

// Of several places, whose similarities are each by the letters that are rare in it.
std::vector<NearestTexts::Match> NearestInteractions::NearestLocked(
    absl::Span<const std::string> experts, const std::string& system_prompt,
    absl::string_view asked, size_t n) {
  std::vector<NearestTexts::Match> all;
  for (const std::string& expert : experts) {
    const auto texts = texts_.find(Place{expert, system_prompt});
    if (texts == texts_.end()) continue;
    const std::vector<NearestTexts::Match> some = texts->second.Nearest(asked, n);
    all.insert(all.end(), some.begin(), some.end());
  }
  if (experts.size() > 1) {
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return std::tie(a.similarity, a.key) > std::tie(b.similarity, b.key);
    });
  }
  return all;
}

absl::StatusOr<std::vector<Interaction>> NearestInteractions::Find(
    absl::Span<const std::string> experts, absl::Span<const Message> messages, size_t n) {
  const std::vector<Message> conversation(messages.begin(), messages.end());
  const std::string& asked = AskedText(conversation);
  std::vector<std::string> ids;
  {
    MutexLock lock(mutex_);
    COTERIE_RETURN_IF_ERROR(RefreshLocked());
    // More than are wanted: some are of one question.
    for (const auto& [key, similarity] :
         NearestLocked(experts, SystemPromptOf(messages), asked, 4 * n)) {
      if (similarity >= kLeastSimilarity) ids.push_back(ids_.at(key));
    }
  }
  std::set<std::string> shown;
  for (size_t i = 0; i + 1 < conversation.size(); ++i) shown.insert(conversation[i].content);
  std::vector<Interaction> found;
  for (const std::string& id : ids) {
    if (found.size() == n) break;
    absl::StatusOr<Interaction> one = log_.Get(id);
    if (!one.ok()) continue;  // Forgotten since.
    if (shown.insert(AskedText(one->messages)).second) found.push_back(*std::move(one));
  }
  return found;
}

std::vector<Message> WithExamples(absl::Span<const Message> messages,
                                  absl::Span<const Interaction> nearest_first) {
  const size_t n_system = !messages.empty() && messages.front().role == "system" ? 1 : 0;
  std::vector<Message> all(messages.begin(), messages.begin() + n_system);
  for (size_t i = nearest_first.size(); i-- > 0;) {
    all.push_back({"user", AskedText(nearest_first[i].messages), ""});
    all.push_back({"assistant", WantedText(nearest_first[i]), ""});
  }
  all.insert(all.end(), messages.begin() + n_system, messages.end());
  return all;
}

}  // namespace coterie
