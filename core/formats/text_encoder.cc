#include "core/formats/text_encoder.h"

namespace coterie {

void TextEncoder::Encode(absl::string_view text, const TokenSink& sink) const {
  const std::optional<Normalized> normalized = Normalize(text);
  if (!normalized.has_value()) return EncodeNormalized(text, sink);
  const size_t first = sink.starts == nullptr ? 0 : sink.starts->size();
  EncodeNormalized(normalized->text, sink);
  if (sink.starts != nullptr) normalized->MapBack(sink.starts, first);
}

}  // namespace coterie
