package org.dualform.presets;

import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/** Tells JavaCPP which headers to parse and where the generated classes go. Not part of the API. */
@Properties(
        value = @Platform(include = {"dualform/df.h", "dualform/df_ops.h"}, link = "dualform", compiler = "cpp17"),
        target = "org.dualform.internal",
        global = "org.dualform.internal.global.DualformNative")
public class DualformPresets implements InfoMapper {
    @Override
    public void map(InfoMap infoMap) {
        infoMap.put(new Info("DF_API", "__attribute__").cppTypes().annotations());
        for (String name : new String[] {
            "df_status", "df_dtype", "df_stat", "df_form", "df_gelu", "df_unary", "df_binary", "df_reduction"
        }) {
            infoMap.put(new Info(name).cast().valueTypes("int").pointerTypes("IntPointer", "IntBuffer", "int[]"));
        }
    }
}
