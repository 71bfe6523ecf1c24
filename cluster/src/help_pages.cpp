#include "help_pages.hpp"

#include <algorithm>
#include <string_view>
#include <vector>

#include "command_line_tables.hpp"
#include "lpu/cluster/presets.hpp"
#include "shipped_models.hpp"
#include "version.hpp"

namespace lpu::cluster {
namespace {

/// Text that troff takes as it stands: hyphens are the ones to copy, a point or an apostrophe in front is no request.
std::string troff(std::string_view text) {
  std::string out;
  bool is_first = true;
  for (const char c : text) {
    if (is_first && (c == '.' || c == '\'')) {
      out += "\\&";
    }
    is_first = c == '\n';
    out += c == '\\' ? std::string("\\e") : c == '-' ? std::string("\\-") : std::string(1, c);
  }
  return out;
}

std::string troff_examples(std::string_view examples) {
  return ".PP\n.nf\n" + troff(examples) + ".fi\n";
}

/// -x, --flag VALUE
std::string troff_flag(const FlagRow& flag) {
  std::string out = flag.letter == 0 ? std::string() : std::string("\\fB\\-") + flag.letter + "\\fR, ";
  out += "\\fB" + troff("--" + std::string(flag.name)) + "\\fR";
  return flag.value_name.empty() ? out : out + " \\fI" + troff(flag.value_name) + "\\fR";
}

std::string verbs_of(const FlagRow& flag) {
  std::string out;
  for (const VerbRow& verb : verb_rows()) {
    if (is_flag_of(flag, verb.verb)) {
      out += (out.empty() ? "" : ", ") + std::string(verb.name);
    }
  }
  return out;
}

std::string troff_verbs() {
  std::string out = ".SH VERBS\n";
  for (const VerbRow& verb : verb_rows()) {
    out += ".TP\n\\fB" + std::string(verb.name) + "\\fR" +
           (verb.usage.empty() ? "" : " \\fI" + troff(verb.usage) + "\\fR") + "\n" + troff(verb.doc) + ".\n";
  }
  return out;
}

std::string troff_flags() {
  std::string out = ".SH OPTIONS\nOf every verb:\n";
  for (const bool is_common : {true, false}) {
    if (!is_common) {
      out += ".PP\nOf some verbs:\n";
    }
    for (const FlagRow& flag : flag_rows()) {
      if (is_of_every_verb(flag) != is_common) {
        continue;
      }
      out += ".TP\n" + troff_flag(flag) + "\n" + troff(flag.doc) + ".\n";
      if (!flag.range.empty()) {
        out += troff(flag.range) + "; default: " + troff(shown_default(flag)) + ".\n";
      }
      if (!is_common) {
        out += "Verbs: " + verbs_of(flag) + ".\n";
      }
    }
  }
  return out;
}

/// The values that a range lists, such as "auto, shm, mpi"; empty: it is no list of words.
std::vector<std::string> listed_values(const FlagRow& flag) {
  std::vector<std::string> out;
  if (flag.value_name == "N" || flag.value_name.find("FILE") != std::string_view::npos) {
    return out;
  }
  const std::string_view range = flag.range;
  for (std::size_t at = 0; at < range.size();) {
    const std::size_t end = std::min(range.find(", ", at), range.size());
    out.emplace_back(range.substr(at, end - at));
    at = end + 2;
  }
  const bool are_words = std::none_of(
      out.begin(), out.end(), [](const std::string& value) { return value.find_first_of(" ^") != std::string::npos; });
  return are_words ? out : std::vector<std::string>();
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    out += (out.empty() ? "" : " ") + word;
  }
  return out;
}

/// --model takes what `list models` lists, and so on.
bool is_kind(std::string_view plural) {
  return std::any_of(kPresetKinds.begin(), kPresetKinds.end(), [&](PresetKind kind) { return folder(kind) == plural; });
}

/// --flag|-x, as a pattern of bash.
std::string flag_pattern(const FlagRow& flag) {
  return "--" + std::string(flag.name) + (flag.letter == 0 ? std::string() : std::string("|-") + flag.letter);
}

/// The flags that take a value, as one pattern of bash.
std::string pattern_of_valued() {
  std::string out;
  for (const FlagRow& flag : flag_rows()) {
    if (!flag.value_name.empty()) {
      out += (out.empty() ? "" : "|") + flag_pattern(flag);
    }
  }
  return out;
}

/// What completes the value of a flag, as arms of a `case` of bash.
std::string value_arms() {
  std::string out;
  for (const FlagRow& flag : flag_rows()) {
    if (flag.value_name.empty()) {
      continue;
    }
    const bool takes_path =
        flag.value_name.find("FILE") != std::string_view::npos || flag.value_name.find("DIR") != std::string_view::npos;
    std::string words = joined(listed_values(flag));
    const std::string plural = std::string(flag.name) + "s";
    if (is_kind(plural)) {
      words = "$(\"$program\" list " + plural + " --names 2> /dev/null)";
    } else if (flag.name == "checkpoint") {
      words = joined({shipped_models().begin(), shipped_models().end()});
    }
    out += "    " + flag_pattern(flag) + ")\n" + "      words=\"" + words + "\"; paths=" + (takes_path ? "yes" : "no") +
           " ;;\n";
  }
  return out;
}

std::string verb_arms() {
  std::string out;
  for (const VerbRow& verb : verb_rows()) {
    std::vector<std::string> flags;
    for (const FlagRow& flag : flag_rows()) {
      if (is_flag_of(flag, verb.verb)) {
        flags.push_back("--" + std::string(flag.name));
      }
    }
    out += "    " + std::string(verb.name) + ") flags=\"" + joined(flags) + "\" ;;\n";
  }
  return out;
}

std::string names_of_kinds() {
  std::vector<std::string> kinds;
  for (const PresetKind kind : kPresetKinds) {
    kinds.emplace_back(folder(kind));
  }
  return joined(kinds);
}

}  // namespace

std::string man_page() {
  std::string out =
      ".TH LPU_CLUSTER 1 \"\" \"lpu_cluster " + version() +
      "\" \"User Commands\"\n.SH NAME\nlpu_cluster \\- emulator of clusters of Language Processing Units\n"
      ".SH SYNOPSIS\n\\fBlpu_cluster\\fR [\\fIVERB\\fR] [\\fIflags\\fR]\n.br\n"
      "\\fBmpirun \\-np\\fR \\fIN\\fR \\fBlpu_cluster\\fR [\\fIVERB\\fR] [\\fIflags\\fR]\n"
      ".SH DESCRIPTION\nThe program " +
      troff(kSummary) + "\nWithout a verb: demo.\n";
  out += troff_verbs() + troff_flags();
  out += ".SH EXIT STATUS\n";
  for (const ExitRow& row : exit_rows()) {
    out += ".TP\n" + std::string(row.code) + "\n" + troff(row.when) + ".\n";
  }
  out +=
      ".SH FILES\n.TP\n\\&../share/lpu_cluster, beside the folder of the program\npresets and models; in scripts: "
      "reports "
      "(scaling_report.py), sweeps (sweep.py), batch files of Slurm.\n";
  out += ".SH EXAMPLES\n" + troff_examples(kExamples);
  for (const VerbRow& verb : verb_rows()) {
    out += ".SS " + std::string(verb.name) + "\n" + troff_examples(verb.examples);
  }
  return out + ".SH SEE ALSO\n.BR mpirun (1)\n";
}

std::string bash_completion() {
  std::vector<std::string> verbs;
  for (const VerbRow& verb : verb_rows()) {
    verbs.emplace_back(verb.name);
  }
  std::vector<std::string> common;
  for (const FlagRow& flag : flag_rows()) {
    if (is_of_every_verb(flag)) {
      common.push_back("--" + std::string(flag.name));
    }
  }
  return R"bash(# Completion of lpu_cluster for bash; generated from the tables behind --help.
_lpu_cluster() {
  local program=${COMP_WORDS[0]} verb=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
  local words="" paths=no flags="" prefix="" is_value=no at operands=()
  COMPREPLY=()
  # The command as it was typed: bash has not expanded it.
  case $program in
    "~"/*) program=$HOME/${program#"~/"} ;;
  esac
  command -v "$program" > /dev/null || program=lpu_cluster
  # --flag=value is three words where = breaks words (COMP_WORDBREAKS), otherwise one.
  if [ "$word" = "=" ]; then
    word="" is_value=yes
  elif [ "$before" = "=" ]; then
    before=${COMP_WORDS[COMP_CWORD-2]} is_value=yes
  elif [[ $word == --*=* ]]; then
    before=${word%%=*} prefix=${word%%=*}= word=${word#*=} is_value=yes
  fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W ")bash" +
         joined(verbs) + " " + joined(common) + R"bash(" -- "$word")
    return
  fi
  # Words that are no flags and no values of flags.
  for ((at = 2; at < COMP_CWORD; at++)); do
    case ${COMP_WORDS[at]} in
      )bash" +
         pattern_of_valued() + R"bash()
        at=$((at + 1))
        [ "${COMP_WORDS[at]}" != "=" ] || at=$((at + 1)) ;;
      -*) ;;
      *) operands+=("${COMP_WORDS[at]}") ;;
    esac
  done
  case $before in
)bash" + value_arms() +
         R"bash(    *)
      [ "$is_value" = no ] || return
      case $verb in
)bash" + verb_arms() +
         R"bash(      esac
      words=$flags
      case $word in
        -*) ;;
        *)
          case $verb in
            list)
              case ${#operands[@]} in
                0) words=")bash" +
         names_of_kinds() + R"bash(" ;;
                1) words="$("$program" list "${operands[0]}" --names 2> /dev/null)" ;;
                *) words="" ;;
              esac ;;
            verify|inspect|mutate|assemble) words=""; paths=yes ;;
          esac ;;
      esac ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  if [ "$paths" = yes ]; then
    compopt -o filenames 2> /dev/null
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$word")
  fi
  COMPREPLY=("${COMPREPLY[@]/#/$prefix}")
}
complete -F _lpu_cluster lpu_cluster
)bash";
}

}  // namespace lpu::cluster
