package org.dualform.lab.icl;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.LabelledData;
import org.dualform.lab.data.LabelledText;
import org.dualform.lab.data.Tokenizer;

/**
 * A classification task in words: a template around the text, and an answer for each label. The built-in ones are those of Dai et al. 2022
 * (arXiv:2212.10559): {@code sst2}, {@code sst5}, {@code mr}, {@code subj}, {@code agnews} and {@code cb}, with the templates of the
 * published code, and {@code agnews-paper} with the template that the paper prints.
 *
 * <p>Threading: immutable.
 *
 * @param name for reports
 * @param template of a query, without its answer; <code>{x}</code> stands for the text, any other name in braces for that field
 * @param answers of the labels, in label order, without the space before them
 * @param labelOrder what the numbers 0, 1, ... in a data file mean: the answers, in the order of the file
 */
public record Task(String name, String template, List<String> answers, List<String> labelOrder) {
    private static final Pattern PLACE = Pattern.compile("\\{([A-Za-z_][A-Za-z0-9_]*)\\}");
    private static final Pattern LINE_END = Pattern.compile("\\s*\\R\\s*");
    private static final String LABEL_NAME = "label_text";
    private static final long LARGEST_FILE = 1 << 20;
    private static final ObjectReader JSON = JsonMapper.builder().build().readerFor(JsonNode.class)
            .with(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .with(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);
    private static final Set<String> KEYS = Set.of("name", "template", "answers", "label_order");
    private static final String NEWS = "Classify the news articles into the categories of World, Sports, Business, and Technology. ";
    private static final Map<String, Task> NAMED = new LinkedHashMap<>();

    static {
        List<String> poles = List.of("Negative", "Positive");
        List<String> topics = List.of("World", "Sports", "Business", "Technology");
        addNamed("sst2", "Sentence: {x} Label:", poles);
        addNamed("sst5", "Sentence: {x} Label:", List.of("terrible", "bad", "neutral", "good", "great"));
        addNamed("mr", "Review: {x} Sentiment:", poles);
        addNamed("subj", "Input: {x} Type:", List.of("objective", "subjective"), List.of("subjective", "objective"));
        addNamed("agnews", NEWS + "Article: {x} Answer:", topics);
        addNamed("agnews-paper", NEWS + "News: {x} Type:", topics);
        addNamed("cb", "{premise} Question: {hypothesis}. True, False, or Neither? Answer:", List.of("True", "False", "Neither"));
    }

    private static void addNamed(String name, String template, List<String> answers) {
        addNamed(name, template, answers, answers);
    }

    private static void addNamed(String name, String template, List<String> answers, List<String> labelOrder) {
        NAMED.put(name, new Task(name, template, answers, labelOrder));
    }

    /**
     * Checks the parts.
     *
     * @param name for reports
     * @param template of a query, without its answer
     * @param answers of the labels, in label order
     * @param labelOrder what the numbers 0, 1, ... in a data file mean
     * @throws InvalidArgumentException if the name is blank, the template has no place for a text or several lines, there are fewer than
     *     two answers or one twice, or the label order has other words than the answers
     */
    public Task {
        answers = List.copyOf(answers);
        labelOrder = List.copyOf(labelOrder);
        check(!name.isBlank(), "name: blank, expected a word");
        check(PLACE.matcher(template).find(), "template: no place for the text, expected {x} or the name of a field in braces");
        check(!LINE_END.matcher(template).find(), "template: several lines, expected one");
        check(answers.size() >= 2, "answers: " + answers.size() + ", expected at least 2");
        for (String answer : answers) {
            check(!answer.isBlank() && answer.equals(answer.strip()) && !LINE_END.matcher(answer).find(),
                    "answers: \"" + answer + "\", expected words in one line without a space around them");
        }
        check(new HashSet<>(answers).size() == answers.size(), "answers: one is there twice");
        check(labelOrder.size() == answers.size() && new HashSet<>(labelOrder).equals(new HashSet<>(answers)),
                "label order: " + String.join(", ", labelOrder) + ", expected each of " + String.join(", ", answers) + " once");
    }

    private static void check(boolean holds, String sentence) {
        if (!holds) {
            throw new InvalidArgumentException(sentence);
        }
    }

    /**
     * The names of the built-in tasks.
     *
     * @return in the order of the paper's tables
     */
    public static List<String> names() {
        return List.copyOf(NAMED.keySet());
    }

    /**
     * A built-in task.
     *
     * @param name such as {@code sst2}
     * @return the task
     * @throws InvalidArgumentException if there is none of that name
     */
    public static Task named(String name) {
        Task task = NAMED.get(name);
        if (task == null) {
            throw new InvalidArgumentException("task: \"" + name + "\", expected one of " + String.join(", ", names())
                    + " or a .json file with name, template and answers");
        }
        return task;
    }

    /**
     * Reads a task of the user: <code>{"name": ..., "template": ..., "answers": [...]}</code>, and {@code "label_order"} where the numbers
     * in the data do not follow the answers.
     *
     * @param file JSON in UTF-8, at most 1 MiB
     * @return the task
     * @throws DataException if it is not such a file; the sentence names it
     * @throws IOException if it cannot be read
     */
    public static Task read(Path file) throws IOException {
        if (!Files.isRegularFile(file)) {
            throw new DataException(file + ": there is no such file, expected a task as JSON");
        }
        if (Files.size(file) > LARGEST_FILE) {
            throw new DataException(file + ": " + Files.size(file) + " bytes, expected at most " + LARGEST_FILE);
        }
        JsonNode json;
        try {
            json = JSON.readTree(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(Files.readAllBytes(file))).toString());
        } catch (CharacterCodingException e) {
            throw new DataException(file + ": not UTF-8 text");
        } catch (JsonProcessingException e) {
            throw new DataException(file + ":" + e.getLocation().getLineNr()
                    + ": not JSON, expected an object with \"name\", \"template\" and \"answers\"");
        }
        if (!json.isObject()) {
            throw new DataException(file + ": not a JSON object, expected one with \"name\", \"template\" and \"answers\"");
        }
        for (Map.Entry<String, JsonNode> entry : json.properties()) {
            if (!KEYS.contains(entry.getKey())) {
                throw new DataException(file + ": unknown key \"" + entry.getKey() + "\", expected name, template, answers or label_order");
            }
        }
        List<String> answers = words(file, json, "answers");
        try {
            return new Task(word(file, json, "name"), word(file, json, "template"), answers,
                    json.has("label_order") ? words(file, json, "label_order") : answers);
        } catch (InvalidArgumentException e) {
            throw new DataException(file + ": " + e.getMessage());
        }
    }

    private static String word(Path file, JsonNode json, String key) throws DataException {
        if (!json.path(key).isTextual()) {
            throw new DataException(file + ": no \"" + key + "\", expected a string");
        }
        return json.get(key).textValue();
    }

    private static List<String> words(Path file, JsonNode json, String key) throws DataException {
        List<String> words = new ArrayList<>();
        for (JsonNode word : json.path(key)) {
            words.add(word.isTextual() ? word.textValue() : null);
        }
        if (!json.path(key).isArray() || words.contains(null)) {
            throw new DataException(file + ": no \"" + key + "\", expected a list of strings");
        }
        return words;
    }

    /**
     * The same task for data with other numbers.
     *
     * @param order what the numbers 0, 1, ... in the data mean: each answer once, upper or lower case alike
     * @return the new task
     * @throws InvalidArgumentException if an answer is missing, there twice or unknown
     */
    public Task withLabelOrder(List<String> order) {
        return new Task(name, template, answers, order.stream()
                .map(word -> answers.stream().filter(word::equalsIgnoreCase).findFirst().orElse(word)).toList());
    }

    /**
     * Whether number i in a data file is the i-th answer.
     *
     * @return whether label order and answers are the same
     */
    public boolean hasOwnOrder() {
        return labelOrder.equals(answers);
    }

    /**
     * Reads labelled text: TSV, JSONL or CSV. Labels are numbers, which mean {@link #labelOrder}, or the answers themselves. Where an
     * example has a field {@code label_text} that is one of the answers, it must agree with the label.
     *
     * @param file the data
     * @return at least one example
     * @throws DataException if the file or a line of it cannot be used; the sentence names them
     * @throws IOException if it cannot be read
     */
    public List<LabelledText> examples(Path file) throws IOException {
        List<LabelledText> examples = LabelledData.read(file, labelOrder);
        for (LabelledText example : examples) {
            String told = example.fields().get(LABEL_NAME);
            String read = labelOrder.get(example.label());
            if (told != null && answers.contains(told) && !told.equals(read)) {
                throw new DataException(example.where() + ": label " + example.label() + " is read as " + read + ", but " + LABEL_NAME
                        + " is " + told + ", expected both to agree: give the order of the file's labels");
            }
            for (String field : fields()) {
                example.field(field);
            }
        }
        return examples;
    }

    private List<String> fields() {
        return PLACE.matcher(template).results().map(place -> field(place.group(1))).distinct().toList();
    }

    private static String field(String place) {
        return place.equals("x") ? LabelledText.TEXT : place;
    }

    /**
     * The query: the template with the text in it, in one line.
     *
     * @param example whose fields
     * @return the words, without the answer
     * @throws DataException if a field is missing; the sentence names file and line
     */
    public String input(LabelledText example) throws DataException {
        Matcher places = PLACE.matcher(template);
        StringBuilder filled = new StringBuilder();
        while (places.find()) {
            String text = LINE_END.matcher(example.field(field(places.group(1))).strip()).replaceAll(" ");
            places.appendReplacement(filled, Matcher.quoteReplacement(text));
        }
        return places.appendTail(filled).toString();
    }

    /**
     * The tokens of an example.
     *
     * @param tokenizer of the model
     * @param example of {@link #examples}
     * @return its query and the index of its answer
     * @throws DataException if a field is missing; the sentence names file and line
     */
    public TokenTask.Example encode(Tokenizer tokenizer, LabelledText example) throws DataException {
        return new TokenTask.Example(tokenizer.encode(input(example)), answers.indexOf(labelOrder.get(example.label())));
    }

    /**
     * The task in tokens. An answer begins with a space; the end-of-text token begins a prompt and closes a demonstration.
     *
     * @param tokenizer of the model
     * @return the task for {@link #encode} of the same tokenizer
     * @throws InvalidArgumentException if the tokenizer cannot tell two answers apart
     */
    public TokenTask tokens(Tokenizer tokenizer) {
        List<int[]> tokens = answers.stream().map(answer -> tokenizer.encode(" " + answer)).toList();
        for (int i = 0; i < tokens.size(); i++) {
            for (int j = 0; j < i; j++) {
                check(!Arrays.equals(tokens.get(i), tokens.get(j)), "answers: " + answers.get(j) + " and " + answers.get(i)
                        + " have the same tokens in the model's vocabulary, expected that it can tell them apart");
            }
        }
        return new TokenTask(name, tokenizer.endOfText(), tokenizer.endOfText(), tokens, answers);
    }
}
