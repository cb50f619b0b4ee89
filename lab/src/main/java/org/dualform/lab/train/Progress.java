package org.dualform.lab.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.lab.data.DataException;

/**
 * Where a run is: all that a checkpoint holds beside tensors. Batches are addressed by number, so the step is also the sampler's place.
 *
 * <p>Threading: immutable, if nobody changes the collections.
 *
 * @param step steps done, skipped ones included
 * @param optimizerSteps steps the optimizer took
 * @param skippedInARow steps skipped since the last one taken
 * @param skipped numbers of all steps skipped
 * @param evaluatedAt step after which the last complete evaluation was; -1 before the first
 * @param logs name to length in bytes of the run's logs at this step
 * @param fixed what a run that goes on must have in common with this one
 * @param adjustable what it may change, at the price of another trajectory
 */
public record Progress(
        long step,
        long optimizerSteps,
        int skippedInARow,
        List<Long> skipped,
        long evaluatedAt,
        Map<String, Long> logs,
        Map<String, String> fixed,
        Map<String, String> adjustable) {
    private static final ObjectMapper JSON = new ObjectMapper();

    String toJson() {
        ObjectNode all = JSON.createObjectNode();
        all.put("step", step).put("optimizer_steps", optimizerSteps).put("skipped_in_a_row", skippedInARow);
        ArrayNode numbers = all.putArray("skipped");
        skipped.forEach(numbers::add);
        all.put("evaluated_at", evaluatedAt);
        ObjectNode lengths = all.putObject("logs");
        logs.forEach(lengths::put);
        ObjectNode same = all.putObject("fixed");
        fixed.forEach(same::put);
        ObjectNode free = all.putObject("adjustable");
        adjustable.forEach(free::put);
        return all.toString();
    }

    static Progress parse(String json) throws IOException {
        try {
            JsonNode all = JSON.readTree(json);
            List<Long> skipped = new ArrayList<>();
            all.required("skipped").forEach(number -> skipped.add(number.longValue()));
            Map<String, Long> logs = new LinkedHashMap<>();
            all.required("logs").properties().forEach(log -> logs.put(log.getKey(), log.getValue().longValue()));
            return new Progress(all.required("step").longValue(), all.required("optimizer_steps").longValue(),
                    all.required("skipped_in_a_row").intValue(), skipped, all.required("evaluated_at").longValue(), logs,
                    words(all.required("fixed")), words(all.required("adjustable")));
        } catch (JsonProcessingException | IllegalArgumentException e) {
            throw new DataException("its progress cannot be read");
        }
    }

    private static Map<String, String> words(JsonNode object) {
        Map<String, String> words = new LinkedHashMap<>();
        object.properties().forEach(word -> words.put(word.getKey(), word.getValue().asText()));
        return words;
    }
}
