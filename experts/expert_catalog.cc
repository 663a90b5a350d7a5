#include "experts/expert_catalog.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <nlohmann/json.hpp>

#include "core/base/read_file.h"
#include "core/base/status_macros.h"
#include "experts/model_files.h"

#include <sys/stat.h>

namespace coterie {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxManifestBytes = 1 << 16;

absl::Status CheckName(absl::string_view name) {
  const bool ok = !name.empty() && name.size() <= kMaxNameBytes &&
                  std::all_of(name.begin(), name.end(), [](char c) {
                    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                           absl::string_view("._:-").find(c) != absl::string_view::npos;
                  });
  if (ok) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "an expert's name has 1 to 64 letters, digits, or . _ : - : name=\"", name, "\""));
}

bool IsSha256(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isxdigit(static_cast<unsigned char>(c));
         });
}

bool BeginsWithGguf(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return absl::string_view(magic, sizeof(magic)) == "GGUF";
}

struct Manifest {
  std::string name;
  std::string path;  // Absolute.
  std::string sha256;
  std::optional<int64_t> bytes;
};

absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* key,
                                        bool required) {
  const auto field = object.find(key);
  if (field == object.end() || field->is_null()) {
    if (!required) return std::string();
    return absl::DataLossError(absl::StrCat("it has no \"", key, "\""));
  }
  if (!field->is_string()) return absl::DataLossError(absl::StrCat("\"", key, "\" is no string"));
  return field->get<std::string>();
}

absl::StatusOr<Manifest> ReadManifest(const fs::path& file, const fs::path& home) {
  COTERIE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file.string(), kMaxManifestBytes));
  if (text.empty()) return absl::DataLossError("it is empty");
  const nlohmann::json object = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::DataLossError("it is not a JSON object");
  Manifest manifest;
  COTERIE_ASSIGN_OR_RETURN(manifest.name, StringField(object, "name", true));
  COTERIE_RETURN_IF_ERROR(CheckName(manifest.name));
  COTERIE_ASSIGN_OR_RETURN(const std::string path, StringField(object, "path", true));
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::DataLossError("\"path\" is not a path");
  }
  manifest.path = (home / path).lexically_normal().string();
  COTERIE_ASSIGN_OR_RETURN(manifest.sha256, StringField(object, "sha256", false));
  if (!manifest.sha256.empty() && !IsSha256(manifest.sha256)) {
    return absl::DataLossError("\"sha256\" is not 64 hexadecimal digits");
  }
  if (const auto bytes = object.find("bytes"); bytes != object.end() && !bytes->is_null()) {
    if (!bytes->is_number_integer()) return absl::DataLossError("\"bytes\" is no integer");
    manifest.bytes = bytes->get<int64_t>();
  }
  return manifest;
}

// What there is to say of all weight files of a model together.
struct WeightFilesStatus {
  int64_t bytes = 0;
  timespec changed = {};  // The last time that one of them was.
};

absl::StatusOr<WeightFilesStatus> LookAtWeightFiles(const std::string& path) {
  COTERIE_ASSIGN_OR_RETURN(const std::vector<std::string> files, WeightFilesOf(path));
  WeightFilesStatus all;
  for (const std::string& file : files) {
    struct stat status;
    if (stat(file.c_str(), &status) != 0) {
      return absl::NotFoundError(absl::StrCat("a model file is missing: file=", file));
    }
    all.bytes += status.st_size;
    const auto key = [](const timespec& time) { return std::pair(time.tv_sec, time.tv_nsec); };
    if (key(status.st_mtim) > key(all.changed)) all.changed = status.st_mtim;
  }
  return all;
}

bool IsModelFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) && fs::exists(path / "config.json", error);
}

// Adds the expert of a manifest; nothing if its model is of another format.
absl::Status AddExpert(const fs::path& file, const fs::path& home,
                       std::map<std::string, ExpertSpec>& by_name) {
  COTERIE_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(file, home));
  std::error_code error;
  const fs::file_status status = fs::status(manifest.path, error);
  if (!fs::exists(status)) {
    return absl::NotFoundError(absl::StrCat("its model is missing: path=", manifest.path));
  }
  if (!fs::is_regular_file(status) && !IsModelFolder(manifest.path)) return absl::OkStatus();
  COTERIE_ASSIGN_OR_RETURN(const WeightFilesStatus weights, LookAtWeightFiles(manifest.path));
  if (manifest.bytes.has_value() && *manifest.bytes != weights.bytes) {
    return absl::DataLossError(absl::StrCat("its model has another size: path=", manifest.path,
                                            ", bytes=", weights.bytes,
                                            ", expected=", *manifest.bytes));
  }
  absl::StatusOr<ExpertSpec> spec =
      DescribeModelFile(manifest.name, manifest.path, manifest.sha256);
  if (spec.status().code() == absl::StatusCode::kDataLoss) return absl::OkStatus();
  COTERIE_RETURN_IF_ERROR(spec.status());
  const auto [entry, is_new] = by_name.try_emplace(manifest.name, *std::move(spec));
  if (is_new) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "another manifest has the same name: ", manifest.name, ", path=", entry->second.base_path));
}

}  // namespace

absl::StatusOr<ExpertSpec> DescribeModelFile(absl::string_view name, absl::string_view path,
                                             absl::string_view sha256) {
  COTERIE_RETURN_IF_ERROR(CheckName(name));
  const std::string where = absl::StrCat("expert=", name, ", path=", path);
  std::error_code error;
  const fs::path resolved = fs::canonical(fs::path(std::string(path)), error);
  if (error) {
    return absl::NotFoundError(absl::StrCat("the model file does not exist: ", where));
  }
  if (!fs::is_regular_file(resolved, error) && !IsModelFolder(resolved)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model is not a file, nor a folder with config.json: ", where));
  }
  if (fs::is_regular_file(resolved, error) && !BeginsWithGguf(resolved.string())) {
    return absl::DataLossError(absl::StrCat("the model file is not GGUF: ", where));
  }
  COTERIE_ASSIGN_OR_RETURN(const WeightFilesStatus weights, LookAtWeightFiles(std::string(path)));
  ExpertSpec spec;
  spec.name = std::string(name);
  spec.base_path = fs::absolute(fs::path(std::string(path))).lexically_normal().string();
  spec.bytes = weights.bytes;
  spec.base_id = sha256.empty() ? absl::StrCat("file:", resolved.string(), ":", spec.bytes, ":",
                                               weights.changed.tv_sec, ".", weights.changed.tv_nsec)
                                : absl::StrCat("sha256:", absl::AsciiStrToLower(sha256));
  spec.worth = DefaultQuality(name, spec.bytes);
  return spec;
}

absl::StatusOr<ExpertCatalog> ExpertCatalog::FromStore(absl::string_view home) {
  const fs::path root = fs::absolute(fs::path(std::string(home)));
  const fs::path folder = root / "models";
  std::error_code error;
  if (!fs::exists(folder, error) && !error) return ExpertCatalog();
  std::vector<fs::path> manifests;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".json") manifests.push_back(it->path());
  }
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the model store cannot be read: ", error.message(), ": path=", folder.string()));
  }
  std::sort(manifests.begin(), manifests.end());
  std::map<std::string, ExpertSpec> by_name;
  std::vector<std::string> problems;
  for (const fs::path& file : manifests) {
    absl::Status status = AddExpert(file, root, by_name);
    if (!status.ok()) {
      problems.push_back(absl::StrCat(file.string(), ": ", status.message()));
    }
  }
  std::vector<ExpertSpec> specs;
  for (auto& [name, spec] : by_name) specs.push_back(std::move(spec));
  return FromSpecs(std::move(specs), std::move(problems));
}

absl::StatusOr<ExpertCatalog> ExpertCatalog::FromSpecs(std::vector<ExpertSpec> specs,
                                                       std::vector<std::string> problems) {
  std::sort(specs.begin(), specs.end(),
            [](const ExpertSpec& a, const ExpertSpec& b) { return a.name < b.name; });
  for (size_t i = 0; i < specs.size(); ++i) {
    const ExpertSpec& spec = specs[i];
    COTERIE_RETURN_IF_ERROR(CheckName(spec.name));
    if (i > 0 && specs[i - 1].name == spec.name) {
      return absl::InvalidArgumentError(absl::StrCat("two experts have one name: ", spec.name));
    }
    if (!absl::StartsWith(spec.base_path, "/")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an expert's path is not absolute: expert=", spec.name, ", path=", spec.base_path));
    }
    for (const auto& [domain, quality] : spec.worth.quality) {
      if (quality >= 0 && quality <= 1) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("an expert's quality is not in [0, 1]: expert=", spec.name,
                       ", domain=", domain, ", quality=", quality));
    }
  }
  ExpertCatalog catalog;
  catalog.specs_ = std::move(specs);
  catalog.problems_ = std::move(problems);
  return catalog;
}

absl::StatusOr<const ExpertSpec*> ExpertCatalog::Find(absl::string_view name) const {
  for (const ExpertSpec& spec : specs_) {
    if (spec.name == name) return &spec;
  }
  const std::string names = absl::StrJoin(
      specs_, ", ", [](std::string* out, const ExpertSpec& spec) { out->append(spec.name); });
  return absl::NotFoundError(absl::StrCat("there is no expert \"", name, "\"; there ",
                                          specs_.empty() ? "are none" : "are: ", names));
}

}  // namespace coterie
